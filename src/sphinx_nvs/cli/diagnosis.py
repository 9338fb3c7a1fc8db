"""What works in this installation, what is missing, and the command that fixes it.

Every check returns findings and raises nothing: an installation in which torch cannot be imported is diagnosed, too.
Nothing here imports torch before a check needs it.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from sphinx_nvs import __version__
from sphinx_nvs.errors import InputError, SphinxError

DISTRIBUTION = "sphinx-nvs"
INTERNAL_EXTRAS = ("dev",)
"""Extras that only contributors need."""

CPUINFO = Path("/proc/cpuinfo")
CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bfloat16",
    "amx_tile": "AMX",
    "asimd": "NEON",
    "bf16": "NEON bfloat16",
}
"""Flags of /proc/cpuinfo that decide how fast PyTorch computes, and what people call them."""

LEAST_FREE_GB = 2.0
"""Free disk below which a folder is reported."""

SOURCE = Path(__file__).parents[3]
"""The checkout, where the package is imported from one."""

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    Args:
        group: part of the installation, e.g. `packages`.
        name: what was checked.
        state: `missing` for what is optional or not there yet, `broken` for what has to be repaired.
        found: what is there.
        fix: the command, or the step, that fixes it; None if there is nothing to fix.
    """

    group: str
    name: str
    state: State
    found: str
    fix: str | None = None


def diagnose() -> list[Finding]:
    """Runs every check, in the order in which a reader wants the results."""
    return [finding for group, check in CHECKS.items() for finding in _guarded(group, check)]


def pair_works(findings: Iterable[Finding]) -> bool:
    """Whether the default pair rendered."""
    return any((finding.group, finding.name, finding.state) == ("pair", "render", "ok") for finding in findings)


def _guarded(group: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of a check; an exception becomes one more finding."""
    findings = []
    try:
        for finding in check():
            findings.append(finding)
    except Exception as error:
        found = " ".join(f"{type(error).__name__}: {error}".split())
        findings.append(Finding(group=group, name=group, state="broken", found=found, fix=_repair(error)))
    return findings


def _repair(error: Exception) -> str:
    """What to do about an exception that no check expects."""
    if isinstance(error, ImportError) and error.name:
        return _pip(error.name.partition(".")[0], flag="--force-reinstall ")
    return "report it with what SPHINX_DEBUG=1 sphinx-nvs render demo --out demo.mp4 prints"


def _pip(requirement: str, *, flag: str = "") -> str:
    """The command that installs a requirement into this environment."""
    return f"{shlex.quote(sys.executable)} -m pip install {flag}{shlex.quote(requirement)}"


def check_python() -> Iterator[Finding]:
    """The interpreter and this package."""
    yield Finding(group="python", name="python", state="ok", found=f"{platform.python_version()}, {sys.executable}")
    yield Finding(group="python", name=DISTRIBUTION, state="ok", found=f"{__version__}, {Path(__file__).parents[1]}")


def check_packages() -> Iterator[Finding]:
    """Required packages, then one finding for each optional extra."""
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        found = "the package is imported from source and not installed"
        yield Finding(
            group="packages", name=DISTRIBUTION, state="missing", found=found, fix=_pip(str(SOURCE), flag="--editable ")
        )
        return
    requirements = [Requirement(line) for line in distribution.requires or ()]
    required = _unmet(requirements, extra="")
    state: State = "broken" if required else "ok"
    fix = _pip(required[0].partition(" (")[0]) if len(required) == 1 else _pip(DISTRIBUTION) if required else None
    found = f"missing: {', '.join(required)}" if required else "all there"
    yield Finding(group="packages", name="required", state=state, found=found, fix=fix)
    for extra in distribution.metadata.get_all("Provides-Extra") or ():
        if extra not in INTERNAL_EXTRAS:
            yield _extra_finding(extra, _unmet([each for each in requirements if each.marker], extra=extra))


def _extra_finding(extra: str, unmet: list[str]) -> Finding:
    if not unmet:
        return Finding(group="packages", name=f"extra {extra}", state="ok", found="all there")
    found, fix = f"missing: {', '.join(unmet)}", _pip(f"{DISTRIBUTION}[{extra}]")
    return Finding(group="packages", name=f"extra {extra}", state="missing", found=found, fix=fix)


def _unmet(requirements: list[Requirement], *, extra: str) -> list[str]:
    """Requirements of an extra (empty: of the package itself) that the environment does not meet."""
    unmet = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            unmet.append(f"{requirement.name}{requirement.specifier}")
            continue
        # An installed pre-release counts: the environment has it, and it was chosen on purpose.
        if not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement.name}{requirement.specifier} ({version} is installed)")
    return unmet


def check_devices() -> Iterator[Finding]:
    """PyTorch, its threads, GPUs, and what the processor can do."""
    import torch

    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    yield Finding(group="devices", name="torch", state="ok", found=f"{torch.__version__}, {threads}")
    yield Finding(group="devices", name="processor", state="ok", found=", ".join([_processor(), *_cpu_features()]))
    if not torch.cuda.is_available():
        build = "this PyTorch has no CUDA" if torch.version.cuda is None else "its CUDA finds no GPU"
        found = f"none, {build}; the default pair computes on the CPU"
        yield Finding(group="devices", name="GPU", state="missing", found=found, fix=_gpu_fix())
        return
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 1e9
        found = f"{torch.cuda.get_device_name(index)}, {memory:.0f} GB"
        yield Finding(group="devices", name=f"GPU {index}", state="ok", found=found)


def _gpu_fix() -> str | None:
    """The command that gives PyTorch the GPU of this machine; None where there is no GPU to be used."""
    if shutil.which("nvidia-smi") is None:
        return None
    return _pip("torch", flag="--force-reinstall ")


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_features() -> list[str]:
    """Names of the features in `CPU_FEATURES` that the processor has; nothing where the system does not tell."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return [name for flag, name in CPU_FEATURES.items() if flag in flags]


def _cpuinfo(key: str) -> str:
    """The first value of a key of /proc/cpuinfo; empty where there is none."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def check_weights() -> Iterator[Finding]:
    """The weights of each preset, and those of the metrics."""
    from sphinx_nvs.evaluation import weights
    from sphinx_nvs.models.registry import resolve_all
    from sphinx_nvs.presets import SHIPPED, preset_cards

    for name in SHIPPED:
        cards = [card for card in preset_cards(name) if not card.is_shipped]
        try:
            resolve_all({card.part: card.name for card in cards})
            found = "here" if cards else "shipped with the package"
            yield Finding(group="weights", name=f"preset {name}", state="ok", found=found)
        except InputError as error:
            found = f"{error.where}: {error.found}"
            yield Finding(
                group="weights",
                name=f"preset {name}",
                state="missing",
                found=found,
                fix=error.hint.removeprefix("get them: "),
            )
        except SphinxError as error:
            fix = "sphinx-nvs models verify"
            yield Finding(group="weights", name=f"preset {name}", state="broken", found=str(error), fix=fix)
    lacking = [name for name in weights.FILES if not weights.weights_path(name).is_file()]
    found = f"not in {weights.metrics_folder()}: {', '.join(lacking)}" if lacking else "here"
    command = f"{shlex.quote(sys.executable)} -m {weights.__name__}" if lacking else None
    yield Finding(group="weights", name="metrics", state="missing" if lacking else "ok", found=found, fix=command)


def check_folders() -> Iterator[Finding]:
    """The folders that commands write to: whether that is allowed, and whether there is room."""
    from sphinx_nvs.cli.options.serve_options import server_folder
    from sphinx_nvs.models.registry.resolution import models_folder

    folders = {
        "this folder": Path.cwd(),
        "models": models_folder(),
        "calibrations": models_folder().parent / "costs",
        "server": server_folder(None),
        "temporary files": Path(tempfile.gettempdir()),
    }
    for name, folder in folders.items():
        yield _folder_finding(name, folder)


def _folder_finding(name: str, folder: Path) -> Finding:
    """Whether files can be written to a folder, or to the nearest one above it that exists."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir():
        found, fix = f"{folder}: {there} is not a folder", f"rm {shlex.quote(str(there))}"
        return Finding(group="folders", name=name, state="missing", found=found, fix=fix)
    if not os.access(there, os.W_OK | os.X_OK):
        found, fix = f"{folder}: {there} is not writable", f"chmod u+wx {shlex.quote(str(there))}"
        return Finding(group="folders", name=name, state="missing", found=found, fix=fix)
    free = shutil.disk_usage(there).free / 1e9
    found = f"{folder}, {free:.1f} GB free"
    if free < LEAST_FREE_GB:
        return Finding(group="folders", name=name, state="missing", found=found, fix="free disk space")
    return Finding(group="folders", name=name, state="ok", found=found)


def check_video() -> Iterator[Finding]:
    """The encoder of videos. FFmpeg comes inside PyAV: no program has to be installed."""
    import av

    if "libx264" in av.codecs_available:
        yield Finding(group="video", name="encoder", state="ok", found=f"libx264, PyAV {av.__version__}")
        return
    found = f"PyAV {av.__version__} has no libx264; videos are written as MPEG-4 part 2, which browsers do not play"
    fix = f"{_pip('av', flag='--force-reinstall ')} --only-binary=:all:"
    yield Finding(group="video", name="encoder", state="missing", found=found, fix=fix)


def check_pair() -> Iterator[Finding]:
    """Whether the default pair renders, from photos to a video, and whether this machine's speed is known."""
    from sphinx_nvs.media import write_video
    from sphinx_nvs.presets import load_preset
    from sphinx_nvs.procedural import procedural_views
    from sphinx_nvs.profiling.calibration import cached_path
    from sphinx_nvs.scene import Scene

    try:
        pipeline = load_preset(num_steps=4)
        rgb, _, cameras, _ = procedural_views(0, 3, 64, 64, supersample=1)
        frames = pipeline(Scene(name="doctor", images=rgb[[0, 2]], cameras=cameras[[0, 2]]), cameras[[1]]).frames
        with tempfile.TemporaryDirectory() as folder:
            write_video(Path(folder) / "video.mp4", frames, fps=24)
    except SphinxError as error:
        yield Finding(
            group="pair",
            name="render",
            state="broken",
            found=str(error),
            fix=_pip(DISTRIBUTION, flag="--force-reinstall "),
        )
        return
    yield Finding(group="pair", name="render", state="ok", found="the default pair renders a frame and a video")
    path = cached_path(load_preset())
    known = path.is_file()
    found = f"measured, {path}" if known else "not measured yet; the first --deadline-s does it, in about 20 s"
    fix = None if known else "sphinx-nvs plan demo --deadline-s 5"
    yield Finding(group="pair", name="speed", state="ok" if known else "missing", found=found, fix=fix)


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "python": check_python,
    "packages": check_packages,
    "devices": check_devices,
    "weights": check_weights,
    "folders": check_folders,
    "video": check_video,
    "pair": check_pair,
}
"""Every check, by the group of its findings."""
