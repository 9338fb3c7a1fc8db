"""Measures the loss of skipped computation: many plans are run on one scene and compared with full diffusion.

For every lever set two runs start from noise: the whole of each view, and a part selected by the region signal; some
lever sets with network calls are also run with later starts. All runs share one noise. A run is stored as its
start-step map and, per latent cell, the distances of its frames to full diffusion's and to the photos, as means of a
metric's map.

A scene is one safetensors file, written atomically: killing a profile run loses at most one scene's work.

Shapes: R runs, V target views, H W pixels, h w cells.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.assess.change import cell_means, contrast
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.datasets import Case, Size
from sphinx_nvs.evaluation.registry import Metric, available
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan import Levers, economised
from sphinx_nvs.plan.profile import CHANGE, CONTRAST, SIGNALS, UNCERTAINTY
from sphinx_nvs.sampling_params import SamplingParams

LEVERS = (
    Levers(width_nats=0.4, refresh_nats=1.2),
    Levers(width_nats=0.8, end_sigma=0.03, refresh_nats=2.4),
    Levers(width_nats=1.0, end_sigma=0.03, refresh_nats=3.0),
    Levers(width_nats=1.2, end_sigma=0.03, refresh_nats=3.6),
    Levers(width_nats=1.5, end_sigma=0.02, refresh_nats=99.0),
    Levers(width_nats=1.5, end_sigma=0.05, refresh_nats=99.0),
    Levers(width_nats=1.8, end_sigma=0.05, refresh_nats=99.0),
    Levers(width_nats=2.2, end_sigma=0.05, refresh_nats=99.0),
    Levers(width_nats=4.0, end_sigma=0.05, refresh_nats=99.0),
    Levers(width_nats=20.0, end_sigma=0.05, refresh_nats=99.0),
)
"""Noise levels left of the grid: from nearly half of the embedded pair's grid to a single call."""

REFERENCE_LEVERS = (
    Levers(network=False, decoding="survey"),
    Levers(network=False),
    replace(LEVERS[9], decoding="survey"),
    *(LEVERS[place] for place in (9, 8, 7, 3, 1, 0)),
)
"""For a denoiser that decodes beside the photos (`ReferenceDecoding`): cheaper ways to decode, then longer grids."""

WARM_STARTS = (0.3, 0.6)
"""Later starts, as shares of the grid."""

WARM_RUNS = 3
"""Number of lever sets, drawn for each scene, with which each later start is run."""

METRICS = ("ssim", "flip", "lpips_alex", "lpips_vgg", "rmse")
"""Metrics with a map whose means over cells are additive; `rmse` is squared for that."""

SCENES = "scenes"
# Tensors of a record's file, besides its signals and runs.
_TENSORS = ("descriptor", "scores", "contrast", "kept", "kept_truth", "full_truth")

Progress = Callable[[str, int, int], None]
"""Called with the current activity, the number of a scene's finished runs, and their total."""


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Settings of a profile's measurement.

    Args:
        preset: the pair.
        metric: one of `METRICS`.
        against: `full` diffusion, or `truth`.
        signal: region signal, one of `SIGNALS`.
        size: size of the frames.
        levers: lever sets to choose from.
        num_steps: steps of full diffusion.
        settings: everything else that affects the results, as JSON values.

    Raises:
        InputError: the metric has no map, or the reference or signal is unknown.
    """

    preset: str
    metric: str = "ssim"
    against: str = "full"
    signal: str = CHANGE
    size: Size = field(default_factory=lambda: Size(short_side=128))
    levers: tuple[Levers, ...] = LEVERS
    num_steps: int = 50
    settings: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name, known in (("metric", METRICS), ("against", ("full", "truth")), ("signal", SIGNALS)):
            if getattr(self, name) not in known:
                raise InputError(f"--{name}", f"it is {getattr(self, name)!r}", f"choose one of {', '.join(known)}")
        missing = self.measure.missing()
        if missing is not None:
            raise InputError("--metric", f"{self.metric} cannot be computed here: {missing}", "choose another")

    @property
    def measure(self) -> Metric:
        """The metric."""
        return available((self.metric,))[0]

    @property
    def starts(self) -> tuple[int, ...]:
        """Start options on the full grid; the last one keeps the render."""
        return (0, *(round(share * self.num_steps) for share in WARM_STARTS), self.num_steps)

    def fingerprint(self) -> JSONObject:
        """Settings that scenes must share to be fitted together; the reference is chosen when fitting."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name != "against"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A plan that was run.

    Args:
        lever: index of its lever set.
        start_step: start steps on the full grid, before the levers.
        to_full: distance to full diffusion's frames, means over cells.
        to_truth: distance to the photos, means over cells.
    """

    lever: int
    start_step: Int[Tensor, "V h w"]
    to_full: Float[Tensor, "V h w"]
    to_truth: Float[Tensor, "V h w"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """The measurements of one scene.

    Args:
        name: name of the case.
        descriptor: descriptor of the scene.
        scores: frame scores.
        contrast: contrast of the regressor's renders, means over cells.
        signals: region signals by name, means over cells.
        kept: distance of the renders to full diffusion's frames.
        kept_truth: distance of the renders to the photos.
        full_truth: distance of full diffusion's frames to the photos.
        runs: the plans that were run.
    """

    name: str
    descriptor: Float[Tensor, "D"]
    scores: Float[Tensor, "V"]
    contrast: Float[Tensor, "V h w"]
    signals: dict[str, Float[Tensor, "V h w"]]
    kept: Float[Tensor, "V h w"]
    kept_truth: Float[Tensor, "V h w"]
    full_truth: Float[Tensor, "V h w"]
    runs: tuple[Run, ...]

    def score(self, name: str) -> Float[Tensor, "V h w"]:
        """Frame score or contrast of every cell."""
        return self.contrast if name == CONTRAST else self.scores.view(-1, 1, 1).expand_as(self.contrast)


def record_path(folder: Path, case: Case) -> Path:
    """The file of a case."""
    return folder / SCENES / f"{case.name}.safetensors"


def measured_case(
    pipeline: Pipeline, case: Case, config: ProfileConfig, folder: Path, progress: Progress | None = None
) -> Record:
    """A case's record, read from its file if it exists, else measured and written.

    Raises:
        SphinxError: the case cannot be read or rendered; then nothing is written.
    """
    path = record_path(folder, case)
    if path.is_file():
        return read_record(path)
    record = measure_case(pipeline, case, config, progress)
    media.write_bytes(path, _packed(record))
    return record


@torch.inference_mode()
def measure_case(pipeline: Pipeline, case: Case, config: ProfileConfig, progress: Progress | None = None) -> Record:
    """Runs a scene's plans and measures them.

    Raises:
        SphinxError: the case cannot be read or rendered.
    """
    report = progress or (lambda what, done, total: None)
    loaded = case.load(config.size)
    networked = sum(levers.network for levers in config.levers)
    plans_total = 2 * len(config.levers) + min(WARM_RUNS, networked) * len(WARM_STARTS)
    report("regression", 0, plans_total + 1)
    prepared = pipeline.prepare(loaded.scene, loaded.targets)
    factor = pipeline.denoiser.factor
    signals = {UNCERTAINTY: cell_means(prepared.assessment.uncertainty, factor).cpu()}
    if config.signal != UNCERTAINTY:
        prepared = pipeline.probed(prepared, signal=config.signal)
        assert prepared.probe is not None
        # A run that reuses the probe's call would update its caches, and so affect the next run.
        prepared.probe.first = None
        signals[config.signal] = cell_means(prepared.probe.change, factor).cpu()
    report("full diffusion", 0, plans_total + 1)
    whole = pipeline.plan_prepared(prepared, SamplingParams(method="diffusion")).plan
    reference = pipeline.run_plan(prepared, whole).frames

    def distances(frames: Tensor, to: Tensor) -> Tensor:
        return cell_means(distance_map(config.measure, frames, to), factor)

    runs: list[Run] = []
    for lever, start_step in _designs(case.name, signals[config.signal], config):
        report(f"lever set {lever + 1} of {len(config.levers)}", len(runs) + 1, plans_total + 1)
        plan = economised(replace(whole, start_step=start_step.to(whole.start_step.device)), config.levers[lever])
        frames = pipeline.run_plan(prepared, plan).frames
        runs.append(
            Run(
                lever=lever,
                start_step=start_step,
                to_full=distances(frames, reference),
                to_truth=distances(frames, loaded.truth),
            )
        )
    report("done", plans_total + 1, plans_total + 1)
    return Record(
        name=case.name,
        descriptor=prepared.assessment.descriptor.cpu(),
        scores=prepared.assessment.quality.cpu(),
        contrast=cell_means(contrast(prepared.render.rgb), factor).cpu(),
        signals=signals,
        kept=distances(prepared.render.rgb, reference),
        kept_truth=distances(prepared.render.rgb, loaded.truth),
        full_truth=distances(reference, loaded.truth),
        runs=tuple(runs),
    )


def distance_map(metric: Metric, frames: Tensor, to: Tensor) -> Float[Tensor, "V H W"]:
    """A metric's map as a distance: 0 where images are equal."""
    maps = metric.score(frames.cpu(), to.cpu()).maps
    if maps is None:
        raise InputError("--metric", f"{metric.name} has no map", f"choose one of {', '.join(METRICS)}")
    return (1 - maps if metric.higher_is_better else maps).float()


def delivered_distance(config: ProfileConfig, frames: Tensor, reference: Tensor) -> float:
    """Mean distance of frames to reference frames."""
    return float(distance_map(config.measure, frames, reference).double().mean())


def _designs(name: str, signal: Float[Tensor, "V h w"], config: ProfileConfig) -> list[tuple[int, Tensor]]:
    """Lever sets and start-step maps to run, seeded by the scene's name so that profiles are reproducible."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    zeros, steps = torch.zeros(signal.shape, dtype=torch.long), config.num_steps
    designs = []
    for lever in range(len(config.levers)):
        border = float(np.quantile(signal.numpy(), rng.uniform(0.3, 0.95)))
        designs += [(lever, zeros), (lever, torch.where(signal > border, 0, steps))]
    networked = [lever for lever, levers in enumerate(config.levers) if levers.network]
    for start in config.starts[1:-1]:
        drawn = rng.choice(networked, min(WARM_RUNS, len(networked)), replace=False)
        designs += [(int(lever), zeros + start) for lever in drawn]
    return designs


def read_record(path: Path) -> Record:
    """Reads a scene's file.

    Raises:
        InputError: it is damaged.
    """
    try:
        data = path.read_bytes()
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = json.loads(header["__metadata__"]["record"])
        runs = tuple(
            Run(
                lever=lever,
                start_step=tensors["start_step"][index].long(),
                to_full=tensors["to_full"][index].float(),
                to_truth=tensors["to_truth"][index].float(),
            )
            for index, lever in enumerate(about["levers"])
        )
        rest = {name: tensors[name].float() for name in _TENSORS}
        signals = {name: tensors[f"signal.{name}"].float() for name in SIGNALS if f"signal.{name}" in tensors}
        return Record(name=about["name"], signals=signals, runs=runs, **rest)
    except (SafetensorError, KeyError, ValueError, IndexError, OSError):
        found = "it is damaged"
        raise InputError(f"file {path}", found, "delete it, then its scene is measured again") from None


def _packed(record: Record) -> bytes:
    tensors = {
        "start_step": torch.stack([run.start_step for run in record.runs]).to(torch.int16),
        "to_full": torch.stack([run.to_full for run in record.runs]),
        "to_truth": torch.stack([run.to_truth for run in record.runs]),
        **{f"signal.{name}": signal for name, signal in record.signals.items()},
        **{name: getattr(record, name).contiguous() for name in _TENSORS},
    }
    about = {"name": record.name, "levers": [run.lever for run in record.runs]}
    return save({k: v.contiguous() for k, v in tensors.items()}, metadata={"record": json.dumps(about)})
