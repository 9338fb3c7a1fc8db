"""Measures how long a pair of models takes on this machine, once, and remembers it.

Procedural scenes are rendered, and plans carried out that have every kind of call: dense ones that fill the caches or
do not, sparse ones with few and with many active cells, with a new set of cells and with the set of the call before.
Frame sizes, context and target views vary; the cases run in turn, again and again with other scenes and other cells, so
that a burst of someone else's work does not hit one of them alone. Untimed calls of every shape come first.

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
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import sphinx_nvs
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.evaluation.timing import CLOCKS, Stopwatch, synchronise
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import SelectiveDenoiser, agreed_frames
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
"""Sides of the square frames that are measured, in pixels, unless the caller says otherwise."""

REPEATS = 2
"""Timed runs of each case, each with a scene and cells of its own."""

DENSE_STEPS = (0, 7)
STARTS = (0, 3, 5)
NUM_STEPS = 8
"""Of the measured plans: each set of cells is computed by two sparse calls, the last call keeps nothing."""

NOTE = "calibrating this machine, once: about 20 s"
"""For people, before the first use."""

Progress = Callable[[str, int, int], None]
"""Called with what is being measured, how many runs are done, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class CalibrationCase:
    """A request to measure.

    Args:
        size: side of the frames, pixels.
        contexts: photos.
        views: target views.
        shares: of the cells that are active from each of `STARTS` on, ascending.
    """

    size: int
    contexts: int
    views: int
    shares: tuple[float, float, float]

    @property
    def name(self) -> str:
        """For progress, and to tell cases apart."""
        return f"{self.contexts} photos, {self.views} frames of {self.size} pixels"


def calibration_cases(sizes: Sequence[int], fewest_contexts: int = 2) -> list[CalibrationCase]:
    """Two cases for each size: few photos and many frames, and the other way round.

    Args:
        sizes: sides of the frames, pixels; larger ones are measured with fewer views.
        fewest_contexts: that the regressor takes.
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
    """What of the pipeline's denoiser decides how much its calls compute, guidance branches not yet known."""
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
    """Measures this machine; nothing is read or written.

    Args:
        pipeline: the pair to measure.
        sizes: sides of the frames in pixels, at least two, rounded to what the denoiser takes.
        repeats: timed runs of each case.
        clock: `wall`, or `cpu` for seconds of CPU time, which other people's work disturbs less.
        progress: told before every run.

    Raises:
        InputError: an unknown clock, no repeat, or fewer than two different sizes.
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
    """The cost model of this pair on this machine: from the cache, or measured now and put there.

    Where the cache folder cannot be written, the machine is measured each time.

    Args:
        pipeline: the pair.
        sizes: see `calibrate`.
        clock: see `calibrate`.
        progress: see `calibrate`.
        on_first_use: given `NOTE` before measuring.

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
    """Where `calibrated` keeps the cost model of this pair on this machine; the file may not exist yet."""
    key = {**speed_key(pipeline), "sizes": sorted(sizes), "clock": clock, "version": VERSION}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=_kind).encode()).hexdigest()[:16]
    return models_folder().parent / "costs" / f"{pipeline.denoiser.name}-{digest}.json"


def speed_key(pipeline: Pipeline) -> dict[str, Any]:
    """All that decides how long the same request takes: the models, their arithmetic, the machine, the versions."""
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
    """What stands for a setting that is no JSON value."""
    return type(value).__qualname__


def device_name(pipeline: Pipeline) -> str:
    """The GPU that the denoiser computes on, or the processor and how many threads work at once."""
    device = _parameter(pipeline).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _processor() -> str:
    """The processor's name, where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _parameter(pipeline: Pipeline) -> Tensor:
    """A weight of the denoiser's network; for a denoiser without any, a number where and as torch makes them."""
    unet = getattr(pipeline.denoiser, "unet", None)
    parameters = unet.parameters() if isinstance(unet, torch.nn.Module) else iter(())
    return next(parameters, torch.empty(0))


class _Calibration:
    """A calibration while it runs."""

    def __init__(self, pipeline: Pipeline, clock: str, progress: Progress) -> None:
        self.pipeline, self.clock, self.progress = pipeline, clock, progress
        self.network = network_of(pipeline)

    def run(self, sizes: Sequence[int], repeats: int) -> CostModel:
        """Warms up, measures, fits."""
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
        """Stages 1 to 3 and what `_open_once` does: compilers and allocators have done their first work then."""
        prepared = self.pipeline.prepare(*request)
        running = self._open_once(prepared, _plan(self.pipeline, prepared, case, seed=0))
        denoiser, refinement = self.pipeline.denoiser, running.refinement
        if isinstance(denoiser, SelectiveDenoiser) and isinstance(refinement, Refinement):
            branches = len(denoiser.begin(refinement.conditioning, math.inf).caches)
            self.network = replace(self.network, branches=max(1, branches))

    def _open_once(self, prepared: Prepared, plan: ComputePlan) -> Running:
        """Encodes and takes a dense step: kernels for this shape are made now, and not while the clock runs."""
        running = self.pipeline.begin(prepared, plan)
        running.step()
        return running

    def _measured(self, case: CalibrationCase, seed: int, *, is_first: bool) -> Measured:
        """One request of a case, every stage and every call timed."""
        pipeline = self.pipeline
        scene, targets = _request(case, seed)
        stages = _StageClock(self.clock)
        prepared = pipeline.prepare(scene, targets, stages)
        plan = _plan(pipeline, prepared, case, seed)
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
        # What the photos were searched for is there by now, as after a look.
        with self._timed() as closing_again:
            pipeline.finish(running)
        refined = (plan.start_step < plan.num_steps).flatten(1).any(1).nonzero()[:, 0].tolist()
        with self._timed() as agreeing, torch.inference_mode():
            agreed_frames(pipeline.denoiser, frames, running.conditioning, refined)
        asked = plan_calls(plan, self.network, case.contexts)
        was_dense = np.array([report.dense for report in running.steps])
        if not np.array_equal(was_dense, asked.is_dense):
            # Features that do not fit the memory for caches: every call was dense, and none can be foreseen as sparse.
            self.network = replace(self.network, selective=False)
            asked = plan_calls(plan, self.network, case.contexts)
        pixels, seconds = case.size**2, np.array(calls)
        around = refining_rows(case.contexts, case.views, pixels, len(refined))
        return Measured(
            work={
                **regression_rows(case.contexts, case.views, pixels),
                **around,
                "reclose": around["close"],
                "agree": agreement_row(len(refined), pixels),
                "dense": asked.dense,
                "sparse": asked.sparse,
            },
            seconds={
                **{stage: np.array([value]) for stage, value in stages.seconds.items()},
                "open": np.array(opening),
                "close": np.array(closing),
                "reclose": np.array(closing_again),
                "agree": np.array(agreeing),
                "dense": seconds[asked.is_dense],
                "sparse": seconds[~asked.is_dense],
            },
        )

    @contextmanager
    def _timed(self) -> Iterator[list[float]]:
        """A list that the block's seconds are put into."""
        seconds: list[float] = []
        with Stopwatch.running() as watch:
            yield seconds
        seconds.append(max(watch.wall_s if self.clock == "wall" else watch.cpu_s, 1e-9))


class _StageClock:
    """Seconds of stages 1 to 3, by either clock; a `pipeline.Progress`."""

    def __init__(self, clock: str) -> None:
        self.now = time.perf_counter if clock == "wall" else time.process_time
        self.seconds: dict[str, float] = {}
        self._started = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        synchronise()
        if done == 0:
            self._started = self.now()
        else:
            self.seconds[stage] = max(self.now() - self._started, 1e-9)


def _request(case: CalibrationCase, seed: int) -> tuple[Scene, Cameras]:
    """Photos spread over a procedural path, frames between them."""
    count = case.contexts + case.views
    rgb, _, cameras, _ = procedural_views(seed, count, case.size, case.size, supersample=1)
    context = np.linspace(0, count - 1, case.contexts).round().astype(int).tolist()
    targets = [view for view in range(count) if view not in context]
    return Scene(name=f"calibration-{seed}", images=rgb[context], cameras=cameras[context]), cameras[targets]


def _plan(pipeline: Pipeline, prepared: Prepared, case: CalibrationCase, seed: int) -> ComputePlan:
    """Blobs of cells that start early, larger ones around them that start later, the rest held."""
    factor = pipeline.denoiser.factor
    size = prepared.targets.height // factor, prepared.targets.width // factor
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
    """Smooth noise `V h w`, about three blobs to a side."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(views, 1, 4, 4, generator=generator)
    return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)[:, 0]
