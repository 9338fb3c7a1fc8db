"""Measures the speed of a model pair on this machine once, and caches the result.

Procedural scenes are rendered with plans that contain every kind of call: dense ones with and without filling the
caches, sparse ones with few and with many active cells, with a new set of cells and with the previous call's set.
Frame sizes, context and target views vary; the cases run in turn, repeatedly with other scenes and other cells, so
that a burst of another process's load does not affect one case alone. Untimed calls of every shape come first.

Shapes: V target views, h w latent cells.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import sphinx_nvs
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.evaluation.timing import CLOCKS, Stopwatch, synchronise
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.models.base import SelectiveDenoiser, consistent_frames
from sphinx_nvs.models.registry.resolution import models_folder
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Prepared, Running
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.cost_model import (
    VERSION,
    CostModel,
    Measured,
    agreement_row,
    fit,
    refining_rows,
    regression_rows,
)
from sphinx_nvs.plan.workload import Network, plan_calls
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.refine import Refinement
from sphinx_nvs.scene import Scene

SIZES = (64, 128, 256)
"""Default sides of the measured square frames, in pixels."""

REPEATS = 2
"""Timed runs of each case, each with its own scene and cells."""

DENSE_STEPS = (0, 7)
STARTS = (0, 3, 5)
NUM_STEPS = 8
"""Levers of the measured plans: two sparse calls compute each set of cells, the last call caches nothing."""

NOTE = "calibrating this machine, once: about 20 s"
"""Shown to the user before the first calibration."""

Progress = Callable[[str, int, int], None]
"""Called with the current activity, the number of finished runs, and their total."""


@dataclass(frozen=True, kw_only=True)
class CalibrationCase:
    """A request to measure.

    Args:
        size: side of the frames, pixels.
        contexts: number of context views.
        views: number of target views.
        shares: shares of the cells that are active from each of `STARTS` on, ascending.
    """

    size: int
    contexts: int
    views: int
    shares: tuple[float, float, float]

    @property
    def name(self) -> str:
        """Unique description, for progress messages."""
        return f"{self.contexts} photos, {self.views} frames of {self.size} pixels"


def calibration_cases(sizes: Sequence[int], fewest_contexts: int = 2) -> list[CalibrationCase]:
    """Two cases per size: few photos with many frames, and many photos with few frames.

    Args:
        sizes: sides of the frames, pixels; larger ones are measured with fewer views.
        fewest_contexts: least number of context views that the regressor takes.
    """
    views = (10, 4), (7, 3), (5, 2)
    cases = []
    for rank, size in enumerate(sorted(sizes)):
        many, few = views[min(rank, len(views) - 1)]
        contexts = fewest_contexts + max(0, 2 - rank)
        cases.append(CalibrationCase(size=size, contexts=fewest_contexts, views=many, shares=(0.03, 0.15, 0.5)))
        cases.append(CalibrationCase(size=size, contexts=contexts, views=few, shares=(0.08, 0.3, 0.9)))
    return cases


def network_of(pipeline: Pipeline) -> Network:
    """The properties of the pipeline's denoiser that determine its FLOPs, without guidance branches."""
    denoiser = pipeline.denoiser
    return Network(
        config=getattr(getattr(denoiser, "unet", None), "config", None),
        factor=denoiser.factor,
        selective=isinstance(denoiser, SelectiveDenoiser),
    )


def calibrate(
    pipeline: Pipeline,
    *,
    sizes: Sequence[int] = SIZES,
    repeats: int = REPEATS,
    clock: str = "wall",
    progress: Progress | None = None,
) -> CostModel:
    """Measures this machine; reads and writes no files.

    Args:
        pipeline: the pair to measure.
        sizes: sides of the frames in pixels, at least two, rounded to multiples that the denoiser takes.
        repeats: timed runs of each case.
        clock: `wall`, or `cpu` for seconds of CPU time, which other processes disturb less.
        progress: called before every run.

    Raises:
        InputError: the clock is unknown, `repeats` is below 1, or there are fewer than two different sizes.
    """
    if clock not in CLOCKS:
        raise InputError("clock", f"there is no {clock!r}", f"choose {' or '.join(CLOCKS)}")
    if repeats < 1:
        raise InputError("repeats", f"it is {repeats}", "give 1 or more")
    multiple = pipeline.denoiser.size_multiple
    rounded = sorted({max(multiple, round(size / multiple) * multiple) for size in sizes})
    if len(rounded) < 2:
        raise InputError("sizes", f"they come to {rounded}", f"give two or more, {multiple} pixels apart or further")
    return _Calibration(pipeline, clock, progress or (lambda what, done, total: None)).run(rounded, repeats)


def calibrated(
    pipeline: Pipeline,
    *,
    sizes: Sequence[int] = SIZES,
    clock: str = "wall",
    progress: Progress | None = None,
    on_first_use: Callable[[str], None] | None = None,
) -> CostModel:
    """The cost model of this pair on this machine: from the cache, or measured and cached.

    If the cache folder is not writable, the machine is measured each time.

    Args:
        pipeline: the pair.
        sizes: see `calibrate`.
        clock: see `calibrate`.
        progress: see `calibrate`.
        on_first_use: called with `NOTE` before a measurement.

    Raises:
        InputError: the cached file is damaged, or as `calibrate` does.
    """
    path = cached_path(pipeline, sizes=sizes, clock=clock)
    if path.is_file():
        return CostModel.load(path)
    if on_first_use is not None:
        on_first_use(NOTE)
    model = calibrate(pipeline, sizes=sizes, clock=clock, progress=progress)
    with contextlib.suppress(OutputError):
        model.save(path)
    return model


def cached_path(pipeline: Pipeline, *, sizes: Sequence[int] = SIZES, clock: str = "wall") -> Path:
    """The cache file of this pair's cost model on this machine; it may not exist yet."""
    key = {**speed_key(pipeline), "sizes": sorted(sizes), "clock": clock, "version": VERSION}
    # Whatever changes the speed changes the file's name: a cost model of other settings is never found, and needs no
    # check.
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=_kind).encode()).hexdigest()[:16]
    return models_folder().parent / "costs" / f"{pipeline.denoiser.name}-{digest}.json"


def speed_key(pipeline: Pipeline) -> JSONObject:
    """Everything that determines how long a request takes: models, dtypes, machine and package versions."""
    denoiser = pipeline.denoiser
    config = network_of(pipeline).config
    return {
        "regressor": pipeline.regressor.name,
        "denoiser": denoiser.name,
        "network": None if config is None else asdict(config),
        "dtype": str(_parameter(pipeline).dtype),
        "compiled": bool(getattr(denoiser, "compiled", False)),
        "assess": asdict(pipeline.assess_config),
        "cache_gb": pipeline.cache_bytes // 1e9 if math.isfinite(pipeline.cache_bytes) else None,
        "device": device_name(pipeline),
        "torch": torch.__version__,
        "sphinx_nvs": sphinx_nvs.__version__,
    }


def _kind(value: object) -> str:
    """A stand-in for a setting that is not a JSON value."""
    return type(value).__qualname__


def device_name(pipeline: Pipeline) -> str:
    """The denoiser's GPU, or the processor and its number of threads."""
    device = _parameter(pipeline).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _processor() -> str:
    """The processor's name, if the system reports it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _parameter(pipeline: Pipeline) -> Tensor:
    """A weight of the denoiser's network; for a denoiser without weights, a tensor of torch's default kind."""
    unet = getattr(pipeline.denoiser, "unet", None)
    parameters = unet.parameters() if isinstance(unet, torch.nn.Module) else iter(())
    return next(parameters, torch.empty(0))


class _Calibration:
    """State of a running calibration."""

    def __init__(self, pipeline: Pipeline, clock: str, progress: Progress) -> None:
        self.pipeline, self.clock, self.progress = pipeline, clock, progress
        self.network = network_of(pipeline)

    def run(self, sizes: Sequence[int], repeats: int) -> CostModel:
        """Warms up, measures, and fits the cost model."""
        started = time.perf_counter()
        cases = calibration_cases(sizes, self.pipeline.regressor.min_context_views)
        self.progress("warming up", 0, 1 + repeats * len(cases))
        self._warm_up(_request(cases[0], seed=0), cases[0])
        requests = []
        for repeat in range(repeats):
            for index, case in enumerate(cases, repeat * len(cases)):
                self.progress(case.name, 1 + index, 1 + repeats * len(cases))
                requests.append(self._measured(case, index, is_first=not repeat))
        self.progress("done", 1 + repeats * len(cases), 1 + repeats * len(cases))
        return replace(
            fit(self.network, requests),
            clock=self.clock,
            machine=device_name(self.pipeline),
            measured_s=round(time.perf_counter() - started, 3),
        )

    def _warm_up(self, request: tuple[Scene, Cameras], case: CalibrationCase) -> None:
        """Runs stages 1 to 3 and `_open_once`, so that compilation and first allocations are not timed."""
        prepared = self.pipeline.prepare(*request)
        running = self._open_once(prepared, _plan(self.pipeline, prepared, case, seed=0))
        denoiser, refinement = self.pipeline.denoiser, running.refinement
        if isinstance(denoiser, SelectiveDenoiser) and isinstance(refinement, Refinement):
            branches = len(denoiser.begin(refinement.conditioning, math.inf).caches)
            self.network = replace(self.network, branches=max(1, branches))

    def _open_once(self, prepared: Prepared, plan: ComputePlan) -> Running:
        """Encodes and takes a dense step, so that kernels for this shape are built before the clock runs."""
        running = self.pipeline.begin(prepared, plan)
        running.step()
        return running

    def _measured(self, case: CalibrationCase, seed: int, *, is_first: bool) -> Measured:
        """Runs one request of a case, with every stage and every call timed."""
        pipeline = self.pipeline
        scene, targets = _request(case, seed)
        stages = _StageClock(self.clock)
        prepared = pipeline.prepare(scene, targets, stages)
        plan = _plan(pipeline, prepared, case, seed)
        # The first request of a shape builds kernels, which must not be timed.
        if is_first:
            self._open_once(prepared, plan)
        with self._timed() as opening:
            running = pipeline.begin(prepared, plan, seed=seed)
        calls = []
        while running.steps_left:
            with self._timed() as call:
                running.step()
            calls += call
        with self._timed() as closing:
            frames = pipeline.finish(running).frames
        # The search of the photos is cached by now, as it is after a first-step probe.
        with self._timed() as closing_again:
            pipeline.finish(running)
        refined = (plan.start_step < plan.num_steps).flatten(1).any(1).nonzero()[:, 0].tolist()
        surveyed = replace(running, plan=replace(plan, decoding="survey"))
        with self._timed() as closing_surveyed:
            pipeline.finish(surveyed)
        with self._timed() as agreeing, torch.inference_mode():
            consistent_frames(pipeline.denoiser, frames, running.conditioning, refined)
        asked = plan_calls(plan, self.network, case.contexts)
        was_dense = np.array([report.dense for report in running.steps])
        if not np.array_equal(was_dense, asked.is_dense):
            # The features exceeded the cache memory: every call was dense, so none can be predicted as sparse.
            self.network = replace(self.network, selective=False)
            asked = plan_calls(plan, self.network, case.contexts)
        pixels, seconds = case.size**2, np.array(calls)
        around = refining_rows(case.contexts, case.views, pixels, len(refined))
        return Measured(
            work={
                **regression_rows(case.contexts, case.views, pixels),
                **around,
                "reclose": around["close"],
                "survey": around["close"],
                "agree": agreement_row(len(refined), pixels),
                "dense": asked.dense,
                "sparse": asked.sparse,
            },
            seconds={
                **{stage: np.array([value]) for stage, value in stages.seconds.items()},
                "open": np.array(opening),
                "close": np.array(closing),
                "reclose": np.array(closing_again),
                "survey": np.array(closing_surveyed),
                "agree": np.array(agreeing),
                "dense": seconds[asked.is_dense],
                "sparse": seconds[~asked.is_dense],
            },
        )

    @contextmanager
    def _timed(self) -> Iterator[list[float]]:
        """Yields a list that receives the block's seconds."""
        seconds: list[float] = []
        with Stopwatch.running() as watch:
            yield seconds
        # Above 0: the fit works with relative residuals.
        seconds.append(max(watch.wall_s if self.clock == "wall" else watch.cpu_s, 1e-9))


class _StageClock:
    """Seconds of stages 1 to 3, by either clock; a `pipeline.Progress`."""

    def __init__(self, clock: str) -> None:
        self.now = time.perf_counter if clock == "wall" else time.process_time
        self.seconds: dict[str, float] = {}
        self._started = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        # GPU work is queued: without waiting, a stage would be charged what the one before it started.
        synchronise()
        if done == 0:
            self._started = self.now()
        else:
            self.seconds[stage] = max(self.now() - self._started, 1e-9)


def _request(case: CalibrationCase, seed: int) -> tuple[Scene, Cameras]:
    """Photos spread over a procedural path, and targets between them."""
    count = case.contexts + case.views
    rgb, _, cameras, _ = procedural_views(seed, count, case.size, case.size, supersample=1)
    context = np.linspace(0, count - 1, case.contexts).round().astype(int).tolist()
    targets = [view for view in range(count) if view not in context]
    return Scene(name=f"calibration-{seed}", images=rgb[context], cameras=cameras[context]), cameras[targets]


def _plan(pipeline: Pipeline, prepared: Prepared, case: CalibrationCase, seed: int) -> ComputePlan:
    """A plan with blobs of cells that start early, larger ones around them that start later, and the rest held."""
    factor = pipeline.denoiser.factor
    size = prepared.targets.height // factor, prepared.targets.width // factor
    # Blobs and not single cells: how many neighbours a sparse call gathers depends on how active cells lie together.
    noise = _blobs(len(prepared.targets), *size, seed)
    start_step = torch.full(noise.shape, NUM_STEPS)
    for start, share in zip(reversed(STARTS), reversed(case.shares), strict=True):
        start_step[noise <= noise.flatten().quantile(share)] = start
    return ComputePlan(
        start_step=start_step,
        sigmas=pipeline.denoiser.sigmas(NUM_STEPS),
        dense_steps=DENSE_STEPS,
        reason="calibration of the cost model",
    )


def _blobs(views: int, height: int, width: int, seed: int) -> Tensor:
    """Smooth noise `V h w`, with about three blobs per side."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(views, 1, 4, 4, generator=generator)
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)[:, 0]
