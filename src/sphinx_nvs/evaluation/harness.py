"""Measurement of cases times methods by one protocol, one file per case, so that a kill loses at most one case's work.

On each case stages 1 to 3 run first; then, seed by seed, every method in turn computes its plan and its frames from the
same noise. Planning and stages 5 to 8 are timed, and the time of stages 1 to 3 is added to every method; reading
photos, computing metrics and writing are not timed. Every seed's frames are compared with the held-out photos, over
whole frames and over regions.

A case's results are one JSON file, written atomically; a case whose file exists is not measured again.

Shapes: V target views, H W pixels, h w latent cells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.evaluation.consistency import Warp, neighbour_warp, warp_error
from sphinx_nvs.evaluation.datasets import Case, Loaded, Size
from sphinx_nvs.evaluation.energy import EnergyMeter
from sphinx_nvs.evaluation.fidelity import text_from_features
from sphinx_nvs.evaluation.image_metrics import psnr
from sphinx_nvs.evaluation.methods import FULL, WARM, Method, methods_named, plan_with
from sphinx_nvs.evaluation.optional import inception_features, load_inception, why_missing
from sphinx_nvs.evaluation.regions import WHOLE, regions_of, shares
from sphinx_nvs.evaluation.registry import Metric, available
from sphinx_nvs.evaluation.timing import StageTimes, Stopwatch
from sphinx_nvs.geometry.views import nearest_contexts
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.models.unet.network import UNetConfig
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Prepared, Result
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.cost import ideal_flops, plan_flops
from sphinx_nvs.visualization import pictures

SETTINGS = "settings.json"
CASES = "scenes"
VERSION = 1
"""Version of the files' layout; files of another version are not mixed with these."""

MIN_SHARE = 0.01
"""Regions smaller than this share of a scene's pixels have no metrics."""

Progress = Callable[[str, int, int], None]
"""Called with the current activity, the number of a case's runs that are done, and their total."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Methods, metrics and repetitions of an evaluation.

    Args:
        methods: method names, see `methods`.
        size: size of the frames.
        seeds: number of noise seeds per method.
        repeats: timed runs per method and seed.
        warmups: untimed runs before the first timed one.
        metrics: metric names, see `registry`; None means all that this machine can compute.
        settings: everything else that affects the results (preset, device, ...), as JSON values.

    Raises:
        InputError: a method or metric is unknown, or `seeds` or `repeats` is below 1.
    """

    methods: tuple[str, ...]
    size: Size
    seeds: int = 3
    repeats: int = 1
    warmups: int = 1
    metrics: tuple[str, ...] | None = None
    settings: JSONObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        methods_named(self.methods)
        if not any(each.counts for each in available(self.metrics)):
            raise InputError("--metrics", "none of them counts in the loss", "add one, e.g. rmse")
        for name in ("seeds", "repeats"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name}", f"it is {getattr(self, name)}", "give 1 or more")

    def fingerprint(self) -> JSONObject:
        """The settings that two runs must share for their files to be mixed."""
        return {
            "version": VERSION,
            "methods": [method.name for method in methods_named(self.methods)],
            "metrics": [m.name for m in available(self.metrics)],
            "size": asdict(self.size),
            "seeds": self.seeds,
            "repeats": self.repeats,
            **self.settings,
        }


def open_folder(folder: Path, settings: JSONMapping, of: str = "an evaluation") -> None:
    """Creates the folder of a run that can be continued, or checks that an existing one has the same settings.

    Args:
        folder: the folder.
        settings: everything that its results depend on, as JSON values.
        of: what it is the folder of, for the error.

    Raises:
        OutputError: it has other contents, or belongs to a run with other settings.
    """
    # Through JSON, so that tuples compare with the lists that they become in a file.
    wanted = json.loads(json.dumps(settings))
    path = folder / SETTINGS
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise OutputError(f"output {folder}", f"it is not the folder of {of}", "choose another name")
        other = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        if other:
            hint = "give the same settings to continue it, or another folder"
            raise OutputError(f"output {folder}", f"it was started with other {', '.join(other)}", hint)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"output {folder}", f"it is not the folder of {of}", "choose another name")
    media.write_bytes(path, (json.dumps(wanted, indent=1) + "\n").encode())


def case_path(folder: Path, case: Case) -> Path:
    """The file of a case."""
    return folder / CASES / f"{case.name}.json"


def read_case(path: Path) -> JSONObject | None:
    """A case's results; None if its file does not exist.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise InputError(f"file {path}", "it is damaged", "delete it, then its scene is measured again") from None


def run_case(
    pipeline: Pipeline, case: Case, config: EvalConfig, folder: Path, progress: Progress | None = None
) -> JSONObject:
    """A case's results, read from its file if it exists, else measured and written.

    Raises:
        SphinxError: the case cannot be read or rendered; then nothing is written.
    """
    found = read_case(case_path(folder, case))
    if found is not None:
        return found
    measured = measure_case(pipeline, case, config, progress)
    media.write_bytes(case_path(folder, case), (json.dumps(measured, allow_nan=False) + "\n").encode())
    return measured


def warm_up(pipeline: Pipeline, case: Case, config: EvalConfig) -> None:
    """Runs dense and sparse plans untimed, so that no timed run includes compilation, packing or first allocations."""
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
class _References:
    """The references that a case's runs are compared with."""

    truth: Float[Tensor, "V 3 H W"]
    metrics: list[Metric]
    regions: dict[str, Bool[Tensor, "V H W"]]
    warp: Warp | None
    num_context: int
    network: UNetConfig | None


def measure_case(pipeline: Pipeline, case: Case, config: EvalConfig, progress: Progress | None = None) -> JSONObject:
    """Measures a case; returns JSON values.

    Raises:
        SphinxError: the case cannot be read or rendered.
    """
    report = progress or (lambda what, done, total: None)
    loaded = case.load(config.size)
    report("regression", 0, 1)
    preparations, prepared = timed_preparation(pipeline, loaded, config.repeats)
    references = _references(pipeline, loaded, prepared, config)
    methods = methods_named(config.methods)
    runs: dict[str, list[JSONObject]] = {method.name: [] for method in methods}
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
            runs[method.name].append(times | _measured(result, references, warm, method.name))
            shown.setdefault(method.name, (result.frames.cpu(), result.plan))
    report("done", total, total)
    return {
        "case": case.name,
        "source": case.source,
        "size": f"{loaded.targets.width}x{loaded.targets.height}",
        "contexts": len(loaded.scene.images),
        "targets": len(loaded.targets),
        "distance": _distance(loaded, prepared),
        "shares": {name: round(share, 6) for name, share in shares(references.regions).items()},
        "truth_reprojection": None if references.warp is None else warp_error(loaded.truth, references.warp),
        "energy": meter.missing,
        "prepare": preparations,
        "methods": {method.name: runs[method.name] for method in methods},
        "features": _features(loaded, {name: frames for name, (frames, _) in shown.items()}),
        "pictures": _pictures(loaded, shown, [method.name for method in methods]),
    }


def timed_preparation(pipeline: Pipeline, loaded: Loaded, repeats: int) -> tuple[list[JSONObject], Prepared]:
    """Runs and times stages 1 to 3."""
    times = []
    for _ in range(repeats):
        stages = StageTimes()
        with Stopwatch.running() as watch:
            prepared = pipeline.prepare(loaded.scene, loaded.targets, stages)
        times.append({"wall_s": watch.wall_s, "cpu_s": watch.cpu_s, "stages_s": stages.stages_s})
    return times, prepared


def timed_run(
    pipeline: Pipeline, prepared: Prepared, method: Method, seed: int, repeats: int, meter: EnergyMeter
) -> tuple[JSONObject, Result]:
    """A method's frames for one noise seed, and the seconds of each repeat."""
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


def _references(pipeline: Pipeline, loaded: Loaded, prepared: Prepared, config: EvalConfig) -> _References:
    render = prepared.render
    rules = plan_with(pipeline, prepared, method="sphinx")
    regions = regions_of(render, rules.start_step < rules.num_steps)
    exact = loaded.depth is not None
    depth = loaded.depth if loaded.depth is not None else render.depth.cpu()
    known = None if exact else (render.alpha > 0.5).cpu()
    return _References(
        truth=loaded.truth,
        metrics=available(config.metrics),
        regions={name: region for name, region in regions.items() if float(region.double().mean()) >= MIN_SHARE},
        warp=neighbour_warp(depth, loaded.targets, known) if len(loaded.targets) > 1 else None,
        num_context=len(loaded.scene.images),
        network=getattr(getattr(pipeline.denoiser, "unet", None), "config", None),
    )


def _measured(result: Result, references: _References, warm: Tensor | None, name: str) -> JSONObject:
    """A run's results other than its time."""
    frames = result.frames.cpu()
    quality = measure_frames(frames, references.truth, references.metrics, references.regions)
    to_warm = None if warm is None or name == WARM else float(psnr(frames, warm.cpu()).mean())
    return {
        **quality,
        "reprojection": None if references.warp is None else warp_error(frames, references.warp),
        "psnr_to_warm": to_warm,
        "calls": len(result.steps),
        "dense_calls": sum(step.dense for step in result.steps),
        "computed_share": result.computed_share,
        "active_share": result.active_share,
        **_flops(result, references),
    }


def measure_frames(
    frames: Float[Tensor, "V 3 H W"],
    truth: Float[Tensor, "V 3 H W"],
    metrics: Sequence[Metric],
    regions: dict[str, Bool[Tensor, "V H W"]],
) -> JSONObject:
    """Computes every metric of frames against the truth.

    Returns:
        `metrics`: by region (`whole` first) and metric; `views`: by metric, one value per view.
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


def _flops(result: Result, references: _References) -> dict[str, int | None]:
    """FLOPs of the plan's network calls, and their lower bound; None for networks that cannot be counted."""
    if references.network is None:
        return {"flops": None, "ideal_flops": None}
    if not result.steps:
        return {"flops": 0, "ideal_flops": 0}
    dense = [step.step for step in result.steps if step.dense]
    return {
        "flops": sum(plan_flops(result.plan, references.network, references.num_context, dense_steps=dense)),
        "ideal_flops": ideal_flops(result.plan, references.network, references.num_context),
    }


def _features(loaded: Loaded, frames: dict[str, Tensor]) -> JSONObject | None:
    """Inception features of the photos and of each method's first seed, for FID and KID; None without the network."""
    if why_missing(load_inception) is not None:
        return None
    texts = {name: text_from_features(inception_features(each).numpy()) for name, each in frames.items()}
    return {"truth": text_from_features(inception_features(loaded.truth).numpy()), "methods": texts}


def _distance(loaded: Loaded, prepared: Prepared) -> float:
    """Mean distance of targets from the nearest photo, in median depths of the target."""
    contexts = loaded.scene.cameras
    nearest = contexts.centres[nearest_contexts(loaded.targets, contexts, 1)[:, 0]]
    moved = (loaded.targets.centres - nearest).norm(dim=1)
    return float((moved / prepared.render.depth.cpu().flatten(1).median(1).values).mean())


def _pictures(loaded: Loaded, shown: dict[str, tuple[Tensor, ComputePlan]], names: Sequence[str]) -> JSONObject:
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
