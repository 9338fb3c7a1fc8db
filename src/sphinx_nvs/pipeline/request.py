"""The values that pass between a request's stages: prepared, planned, running, done.

    prepared   stages 1 to 3: render and assessment
    planned    stage 4: the plan to run
    running    stages 5 and 6: its holder pulls the steps
    result     stages 7 and 8: frames, with plan, steps and timings

Shapes: V target views, H W pixels, C latent channels, h w latent cells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.assess import Assessment
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Conditioning, Render
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.refine import Probe, Refinement, StepReport
from sphinx_nvs.released_code.loop import ResearchRefinement
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene.scene import Scene

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""


class Clock:
    """Times stages and reports progress.

    Args:
        progress: receives the reports; None drops them.
        before: seconds of earlier stages.
    """

    def __init__(self, progress: Progress | None, before: dict[str, float] | None = None) -> None:
        self.report: Progress = progress or (lambda stage, done, total: None)
        self.stages_s = dict(before or {})

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times a stage, and reports its beginning and end."""
        self.report(stage, 0, 1)
        with self.adding(stage):
            yield
        self.report(stage, 1, 1)

    @contextmanager
    def adding(self, stage: str) -> Iterator[None]:
        """Adds to a stage's time without a report."""
        started = time.perf_counter()
        yield
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + time.perf_counter() - started


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request after stages 1 to 3: all that plans are made from.

    Args:
        scene: the context views.
        targets: the cameras to render.
        render: the regressor's picture of the targets.
        assessment: outcome of stage 3.
        stages_s: seconds each stage took.
        known: views that condition the denoiser, where they are not the scene's; see `long_paths`.
        reference: cameras whose centre is the centre of the denoiser's world; None for the request's own.
        probe: outcome of the probe; None before it, and where no profile reads it.
    """

    scene: Scene
    targets: Cameras
    render: Render
    assessment: Assessment
    stages_s: dict[str, float]
    known: Scene | None = None
    reference: Cameras | None = None
    probe: Probe | None = None

    @property
    def num_known(self) -> int:
        """Number of views that condition the denoiser."""
        return len((self.known or self.scene).images)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Frames, with the plan, steps and timings that made them.

    Args:
        frames: sRGB in [0, 1], one per target camera.
        prepared: render and assessment behind the frames.
        plan: the plan that was run.
        steps: one report per solver step taken.
        stages_s: seconds each stage took.
        seed: seed of the noise.
        full_steps: solver steps of full diffusion, to compare with.
    """

    frames: Float[Tensor, "V 3 H W"]
    prepared: Prepared
    plan: ComputePlan
    steps: list[StepReport]
    stages_s: dict[str, float]
    seed: int
    full_steps: int

    @property
    def active_share(self) -> float:
        """Share of full diffusion's (cell, step) pairs that followed the solver, 0..1."""
        return sum(step.active_cells for step in self.steps) / (self.plan.start_step.numel() * self.full_steps)

    @property
    def computed_share(self) -> float:
        """Share of full diffusion's (cell, step) pairs that the network computed, 0..1."""
        return sum(step.computed_cells for step in self.steps) / (self.plan.start_step.numel() * self.full_steps)


@dataclass(frozen=True, kw_only=True)
class PlannedRequest:
    """A request after stage 4, ready to run.

    Args:
        prepared: stages 1 to 3, with the probe that planning made.
        plan: the plan to run.
        params: quality and seed of the request, with what was left of its deadline when it was planned.
    """

    prepared: Prepared
    plan: ComputePlan
    params: SamplingParams = field(default_factory=SamplingParams)


@dataclass(kw_only=True)
class Running:
    """A request in stage 6; its holder pulls the steps.

    Args:
        prepared: stages 1 to 3.
        plan: stage 4.
        seed: seed of the noise.
        clock: times the stages.
        z_render: latents of the renders; None if every view keeps its render.
        conditioning: the denoiser's conditioning; None likewise.
        refinement: the loop; None likewise, and for a plan without network calls.
        steps: one report per step taken so far.
    """

    prepared: Prepared
    plan: ComputePlan
    seed: int
    clock: Clock
    z_render: Tensor | None = None
    conditioning: Conditioning = None
    refinement: Refinement | ResearchRefinement | None = None
    steps: list[StepReport] = field(default_factory=list)

    @property
    def steps_left(self) -> int:
        """Number of steps still to take."""
        return 0 if self.refinement is None else self.plan.num_steps - self.plan.first_step - len(self.steps)

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Takes the next step.

        Raises:
            RuntimeError: nothing is refined.
        """
        if self.refinement is None:
            raise RuntimeError("nothing is refined: steps_left is 0")
        with self.clock.adding("refine"):
            report = self.refinement.step()
        self.took(report)
        return report

    def took(self, report: StepReport) -> None:
        """Records a step that was taken together with other requests', see `step_together`."""
        self.steps.append(report)
        self.clock.report("refine", len(self.steps), len(self.steps) + self.steps_left)
