"""Cases times methods, measured by one protocol, one file a case, so that killing it loses at most one case's work.

On each case stages 1 to 3 run first; then, seed by seed, every method in turn makes its plan and its frames from the
same noise. Timed are planning and stages 5 to 7, and the time of stages 1 to 3 is added to every method alike; reading
photos, measuring and writing are outside. Every seed's frames are measured against the held-out photos, over whole
frames and over regions.

What a case yields is one JSON file, written beside and renamed; a case whose file is there is not run again.

Shapes: V target views, H W pixels, h w latent cells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.evaluation.consistency import Warp, neighbour_warp, warp_error
from sphinx_nvs.evaluation.datasets import Case, Loaded, Size
from sphinx_nvs.evaluation.energy import EnergyMeter
from sphinx_nvs.evaluation.fidelity import text_from_features
from sphinx_nvs.evaluation.methods import FULL, WARM, Method, methods_named, plan_with
from sphinx_nvs.evaluation.metrics import psnr
from sphinx_nvs.evaluation.optional import inception_features, load_inception, why_missing
from sphinx_nvs.evaluation.regions import WHOLE, regions_of, shares
from sphinx_nvs.evaluation.registry import Metric, available
from sphinx_nvs.evaluation.timing import StageTimes, Stopwatch
from sphinx_nvs.geometry.views import nearest_contexts
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Prepared, Result
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.cost import ideal_flops, plan_flops
from sphinx_nvs.visualization import pictures

SETTINGS = "settings.json"
CASES = "scenes"
VERSION = 1
"""Of the files' layout; files of another are not mixed with ours."""

MIN_SHARE = 0.01
"""Regions smaller than this part of a scene's pixels have no metrics."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many of a case's runs are done, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is measured.

    Args:
        methods: names, see `methods`.
        size: of the frames.
        seeds: how many noises each method gets.
        repeats: how often each is timed.
        warmups: untimed runs before the first timed one.
        metrics: names, see `registry`; None is all that this machine has.
        settings: whatever else decides the outcome (preset, device, ...), as JSON values.

    Raises:
        InputError: an unknown method or metric, no seed, or no repeat.
    """

    methods: tuple[str, ...]
    size: Size
    seeds: int = 3
    repeats: int = 1
    warmups: int = 1
    metrics: tuple[str, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        methods_named(self.methods)
        if not any(each.counts for each in available(self.metrics)):
            raise InputError("--metrics", "none of them makes a loss", "add one, e.g. rmse")
        for name in ("seeds", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name}", f"it is {getattr(self, name)}", "give 1 or more")

    def fingerprint(self) -> dict[str, Any]:
        """What two runs must share for their files to be mixed."""
        return {
            "version": VERSION,
            "methods": [method.name for method in methods_named(self.methods)],
            "metrics": [m.name for m in available(self.metrics)],
            "size": asdict(self.size),
            "seeds": self.seeds,
            "repeats": self.repeats,
            **self.settings,
        }


def open_folder(folder: Path, config: EvalConfig) -> None:
    """Makes the folder of an evaluation, or finds one that was begun with the same settings.

    Raises:
        OutputError: it holds something else, or an evaluation with other settings.
    """
    # Through JSON, so that tuples compare with the lists that they become in a file.
    wanted = json.loads(json.dumps(config.fingerprint()))
    path = folder / SETTINGS
    if path.is_file():
        found = json.loads(path.read_text())
        other = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        if other:
            hint = "give the same settings to go on with it, or another folder"
            raise OutputError(f"output {folder}", f"it was begun with other {', '.join(other)}", hint)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"output {folder}", "it holds something else than an evaluation", "choose another name")
    media.write_bytes(path, (json.dumps(wanted, indent=1) + "\n").encode())


def case_path(folder: Path, case: Case) -> Path:
    """The file of a case."""
    return folder / CASES / f"{case.name}.json"


def read_case(path: Path) -> dict[str, Any] | None:
    """What a case yielded; None if its file is not there.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise InputError(f"file {path}", "it is damaged", "delete it, and its scene is measured again") from None


def run_case(
    pipeline: Pipeline, case: Case, config: EvalConfig, folder: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """What a case yields, from its file if it is there, else measured and written.

    Raises:
        SphinxError: the case cannot be read or rendered; nothing is written then.
    """
    found = read_case(case_path(folder, case))
    if found is not None:
        return found
    measured = measure_case(pipeline, case, config, progress)
    media.write_bytes(case_path(folder, case), (json.dumps(measured, allow_nan=False) + "\n").encode())
    return measured


def warm_up(pipeline: Pipeline, case: Case, config: EvalConfig) -> None:
    """Untimed runs, dense and sparse, so that no timed one compiles, packs or allocates for the first time."""
    if config.warmups < 1:
        return
    loaded = case.load(config.size)
    for _ in range(config.warmups):
        prepared = pipeline.prepare(loaded.scene, loaded.targets)
        for method in methods_named(("full-2", "r", *_sparsest(config.methods))):
            if method.name != FULL:
                pipeline.run(method.make(pipeline, prepared, 0))


def _sparsest(methods: Sequence[str]) -> tuple[str, ...]:
    """One of the preset's own plans, if any is measured."""
    return tuple(name for name in methods if name.startswith("ours-"))[:1]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Yardsticks:
    """What a case's runs are measured by."""

    truth: Float[Tensor, "V 3 H W"]
    metrics: list[Metric]
    regions: dict[str, Bool[Tensor, "V H W"]]
    warp: Warp | None
    num_context: int
    network: Any


def measure_case(
    pipeline: Pipeline, case: Case, config: EvalConfig, progress: Progress | None = None
) -> dict[str, Any]:
    """Everything that a case yields, as JSON values.

    Raises:
        SphinxError: the case cannot be read or rendered.
    """
    report = progress or (lambda what, done, total: None)
    loaded = case.load(config.size)
    report("regression", 0, 1)
    preparations, prepared = timed_preparation(pipeline, loaded, config.repeats)
    yardsticks = _yardsticks(pipeline, loaded, prepared, config)
    methods = methods_named(config.methods)
    runs: dict[str, list[dict[str, Any]]] = {method.name: [] for method in methods}
    shown: dict[str, tuple[Tensor, ComputePlan]] = {}
    meter = EnergyMeter.open()
    done, total = 0, config.seeds * len(methods)
    for seed in range(config.seeds):
        warm: Tensor | None = None
        for method in sorted(methods, key=lambda m: m.name != WARM):
            report(f"{method.name}, seed {seed}", done, total)
            done += 1
            if seed and not method.is_random:
                continue
            times, result = timed_run(pipeline, prepared, method, seed, config.repeats, meter)
            warm = result.frames if method.name == WARM else warm
            runs[method.name].append(times | _measured(result, yardsticks, warm, method.name))
            shown.setdefault(method.name, (result.frames.cpu(), result.plan))
    report("done", total, total)
    return {
        "case": case.name,
        "source": case.source,
        "size": f"{loaded.targets.width}x{loaded.targets.height}",
        "contexts": len(loaded.scene.images),
        "targets": len(loaded.targets),
        "distance": _distance(loaded, prepared),
        "shares": {name: round(share, 6) for name, share in shares(yardsticks.regions).items()},
        "truth_reprojection": None if yardsticks.warp is None else warp_error(loaded.truth, yardsticks.warp),
        "energy": meter.missing,
        "prepare": preparations,
        "methods": {method.name: runs[method.name] for method in methods},
        "features": _features(loaded, {name: frames for name, (frames, _) in shown.items()}),
        "pictures": _pictures(loaded, shown, [method.name for method in methods]),
    }


def timed_preparation(pipeline: Pipeline, loaded: Loaded, repeats: int) -> tuple[list[dict[str, Any]], Prepared]:
    """Stages 1 to 3, timed."""
    times = []
    for _ in range(repeats):
        stages = StageTimes()
        with Stopwatch.running() as watch:
            prepared = pipeline.prepare(loaded.scene, loaded.targets, stages)
        times.append({"wall_s": watch.wall_s, "cpu_s": watch.cpu_s, "stages_s": stages.stages_s})
    return times, prepared


def timed_run(
    pipeline: Pipeline, prepared: Prepared, method: Method, seed: int, repeats: int, meter: EnergyMeter
) -> tuple[dict[str, Any], Result]:
    """A method's frames from one noise, and the seconds of each repeat."""
    wall, cpu, joules = [], [], []
    for _ in range(repeats):
        stages = StageTimes()
        meter.start()
        with Stopwatch.running() as watch:
            planned = method.make(pipeline, prepared, seed)
            with Stopwatch.running() as refining:
                result = pipeline.run(planned, progress=stages)
        joules.append(meter.stop())
        wall.append(watch.wall_s)
        cpu.append(watch.cpu_s)
        stages.stages_s["plan"] = watch.wall_s - refining.wall_s
    times = {"seed": seed, "wall_s": wall, "cpu_s": cpu, "energy_j": joules, "stages_s": stages.stages_s}
    return times, result


def _yardsticks(pipeline: Pipeline, loaded: Loaded, prepared: Prepared, config: EvalConfig) -> _Yardsticks:
    render = prepared.render
    rules = plan_with(pipeline, prepared, method="sphinx")
    regions = regions_of(render, rules.start_step < rules.num_steps)
    exact = loaded.depth is not None
    depth = loaded.depth if loaded.depth is not None else render.depth.cpu()
    known = None if exact else (render.alpha > 0.5).cpu()
    return _Yardsticks(
        truth=loaded.truth,
        metrics=available(config.metrics),
        regions={name: region for name, region in regions.items() if float(region.double().mean()) >= MIN_SHARE},
        warp=neighbour_warp(depth, loaded.targets, known) if len(loaded.targets) > 1 else None,
        num_context=len(loaded.scene.images),
        network=getattr(getattr(pipeline.denoiser, "unet", None), "config", None),
    )


def _measured(result: Result, yardsticks: _Yardsticks, warm: Tensor | None, name: str) -> dict[str, Any]:
    """Everything but seconds of a run."""
    frames = result.frames.cpu()
    quality = measure_frames(frames, yardsticks.truth, yardsticks.metrics, yardsticks.regions)
    to_warm = None if warm is None or name == WARM else float(psnr(frames, warm.cpu()).mean())
    return {
        **quality,
        "reprojection": None if yardsticks.warp is None else warp_error(frames, yardsticks.warp),
        "psnr_to_warm": to_warm,
        "calls": len(result.steps),
        "dense_calls": sum(step.dense for step in result.steps),
        "computed_share": result.computed_share,
        "active_share": result.active_share,
        **_flops(result, yardsticks),
    }


def measure_frames(
    frames: Float[Tensor, "V 3 H W"],
    truth: Float[Tensor, "V 3 H W"],
    metrics: Sequence[Metric],
    regions: dict[str, Bool[Tensor, "V H W"]],
) -> dict[str, Any]:
    """Every metric of frames against the truth.

    Returns:
        `metrics`: by region (`whole` first) and metric; `views`: by metric, one value a view.
    """
    by_region: dict[str, dict[str, float]] = {WHOLE: {}, **{name: {} for name in regions}}
    views = {}
    for each in metrics:
        scores = each.score(frames, truth)
        by_region[WHOLE][each.name] = float(scores.values.mean())
        views[each.name] = [round(float(value), 6) for value in scores.values]
        for name, region in regions.items():
            value = each.over(scores, region)
            if value is not None:
                by_region[name][each.name] = value
    return {"metrics": by_region, "views": views}


def _flops(result: Result, yardsticks: _Yardsticks) -> dict[str, int | None]:
    """FLOPs of the plan's network calls, and the least that they could be; None for networks that cannot be counted."""
    if yardsticks.network is None:
        return {"flops": None, "ideal_flops": None}
    if not result.steps:
        return {"flops": 0, "ideal_flops": 0}
    dense = [step.step for step in result.steps if step.dense]
    return {
        "flops": sum(plan_flops(result.plan, yardsticks.network, yardsticks.num_context, dense_steps=dense)),
        "ideal_flops": ideal_flops(result.plan, yardsticks.network, yardsticks.num_context),
    }


def _features(loaded: Loaded, frames: dict[str, Tensor]) -> dict[str, Any] | None:
    """Inception features of the photos and of each method's first seed, for FID and KID; None without the network."""
    if why_missing(load_inception) is not None:
        return None
    texts = {name: text_from_features(inception_features(each).numpy()) for name, each in frames.items()}
    return {"truth": text_from_features(inception_features(loaded.truth).numpy()), "methods": texts}


def _distance(loaded: Loaded, prepared: Prepared) -> float:
    """How far targets are from the nearest photo, in median depths of what they see; mean over targets."""
    contexts = loaded.scene.cameras
    nearest = contexts.centres[nearest_contexts(loaded.targets, contexts, 1)[:, 0]]
    moved = (loaded.targets.centres - nearest).norm(dim=1)
    return float((moved / prepared.render.depth.cpu().flatten(1).median(1).values).mean())


def _pictures(loaded: Loaded, shown: dict[str, tuple[Tensor, ComputePlan]], names: Sequence[str]) -> dict[str, Any]:
    """One view of each method, of the truth, and of each plan that treats cells differently; seed 0."""
    view = len(loaded.targets) - 1
    plans = {}
    for name in names:
        frames, plan = shown[name]
        start_step = plan.start_step.cpu()
        if int(start_step.min()) < int(start_step.max()):
            plans[name] = pictures.plan_text(frames[view], start_step[view], plan.num_steps)
    return {
        "view": view,
        "truth": pictures.jpeg_text(loaded.truth[view]),
        "methods": {name: pictures.jpeg_text(shown[name][0][view]) for name in names},
        "plans": plans,
    }
