"""A new device's seconds, in about as many seconds: from its calibration if there is one, else from a few calls.

A machine that was calibrated (`profiling.calibration`) is known well. One that was not is taken for a machine that was,
made slower or faster as a whole:

    coefficients = REFERENCE * measured / predicted           of one small request, for stages 1 to 3 and 5 to 8 apart

Its 95th percentiles are wide. Either way, a small request goes through the device before it is ready, so that the first
user does not wait for compilers and allocators.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Prepared
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.cost_model import REGRESSING, CostModel
from sphinx_nvs.plan.workload import Network
from sphinx_nvs.profiling.calibration import cached_path, calibrated, device_name, network_of
from sphinx_nvs.scene.scene import Scene

_T = TypeVar("_T")

REFERENCE = {
    "dense": (0.0226, 0.00878, 0.00419, 0.00892),
    "sparse": (0.02, 0.0135, 0.00134, 0.00122, 0.0262, 0.00826),
    "open": (0.0144, 0.0326, 0.659, 0.0),
    "close": (0.0368, 0.918, 0.208),
    "reclose": (0.00902, 1.14, 0.00614),
    "survey": (0.00865, 0.928, 0.113),
    "agree": (0.00176, 0.401),
    "reconstruct": (0.000839, 4.12),
    "render": (0.0231, 0.561, 0.0),
    "assess": (0.00464, 0.184, 0.0),
}
"""Seconds per quantity of the embedded pair on one thread of an Intel Xeon with AMX, 2026-12; see `CostModel`."""

SPREAD_P95 = 2.0
"""95th percentile over the median where nothing but one request was measured."""

CONTEXTS, VIEWS, STEPS = 2, 4, 3
"""Shape of the small request."""


def measured_costs(pipeline: Pipeline, *, calibrate: bool = False) -> CostModel:
    """This machine's seconds for a pipeline, which is warm afterwards.

    Args:
        pipeline: the pair.
        calibrate: whether a machine that was never calibrated is now, which takes some 20 s.
    """
    trial = _Trial(pipeline)
    trial.run()
    if calibrate or cached_path(pipeline).is_file():
        return calibrated(pipeline)
    return trial.scaled()


class _Trial:
    """A small request, through all stages twice: once to warm up, once to be timed."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.size = pipeline, max(128, pipeline.denoiser.size_multiple)
        self.regressing_s = self.refining_s = 0.0
        self.network: Network = network_of(pipeline)

    def run(self) -> None:
        """Both times."""
        scene, targets = _request(self.size)
        for _ in range(2):
            prepared, self.regressing_s = _timed(partial(self.pipeline.prepare, scene, targets))
            plan = _full_plan(self.pipeline, prepared)
            _, self.refining_s = _timed(partial(self.pipeline.run_plan, prepared, plan))

    def scaled(self) -> CostModel:
        """The reference, as slow as this machine is."""
        like = CostModel(network=self.network, coefficients=REFERENCE, refining_p95=1.0, regressing_p95=1.0)
        shape: Any = {"num_context": CONTEXTS, "views": VIEWS, "height": self.size, "width": self.size}
        refining = self.refining_s / like.full_seconds(**shape, num_steps=STEPS).median
        regressing = self.regressing_s / like.regression_seconds(**shape).median
        return replace(
            like,
            coefficients={
                kind: tuple((regressing if kind in REGRESSING else refining) * seconds for seconds in row)
                for kind, row in REFERENCE.items()
            },
            refining_p95=SPREAD_P95,
            regressing_p95=SPREAD_P95,
            machine=device_name(self.pipeline),
            measured_s=round(self.refining_s + self.regressing_s, 3),
        )


def _timed(work: Callable[[], _T]) -> tuple[_T, float]:
    """A call's result and its seconds."""
    started = time.perf_counter()
    made = work()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return made, time.perf_counter() - started


def _request(size: int) -> tuple[Scene, Cameras]:
    """Smooth noise, photographed by neighbours."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    c2w = torch.eye(4, dtype=torch.float64).repeat(CONTEXTS + VIEWS, 1, 1)
    c2w[:, 0, 3] = torch.linspace(0, 0.1, CONTEXTS + VIEWS, dtype=torch.float64)
    K = torch.tensor([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]], dtype=torch.float64)
    cameras = Cameras(c2w, K.repeat(CONTEXTS + VIEWS, 1, 1), size, size)
    photos = Scene(name="trial", images=image.repeat(CONTEXTS, 1, 1, 1), cameras=cameras[:CONTEXTS])
    return photos, cameras[CONTEXTS:]


def _full_plan(pipeline: Pipeline, prepared: Prepared) -> ComputePlan:
    """Full diffusion in few steps."""
    factor = pipeline.denoiser.factor
    cells = len(prepared.targets), prepared.targets.height // factor, prepared.targets.width // factor
    return ComputePlan(start_step=torch.zeros(cells, dtype=torch.long), sigmas=pipeline.denoiser.sigmas(STEPS))
