"""The life of a request: scene and cameras in, frames out. Read this file first.

    1. reconstruct   the regressor understands the context views               models/planesweep, ...
    2. render        it shows every target view: rgb, alpha, depth, confidence  render/
    3. assess        where is that uncertain, how good is each view            assess/
    4. plan          from which step on is each latent cell denoised           plan/
    5. encode        renders and context views become latents                  models/autoencoder, ...
    6. refine        the denoising loop, step by step                          refine/
    7. decode        latents become frames, held regions keep the render       models/autoencoder, refine/

Regression alone and full diffusion are not other code paths: they are other plans.

Shapes: V target views, H W pixels, C latent channels, h w latent cells.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.assess import AssessConfig, Assessment, assess
from sphinx_nvs.assess.change import cell_means
from sphinx_nvs.assess.research import research_assess
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Denoiser, Reconstruction, Regressor, Render
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan, PlanConfig, Profile, make_plan
from sphinx_nvs.plan.compute_plan import Prediction
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.plan.fitted import Signals, Timing, Wish, plan_fitted
from sphinx_nvs.plan.profile import CHANGE, AnyProfile, FittedProfile
from sphinx_nvs.plan.research import research_plan
from sphinx_nvs.refine import (
    Probe,
    Refinement,
    StepReport,
    arithmetic_for,
    begin_refinement,
    blend_held,
    probe,
    restore_detail,
)
from sphinx_nvs.refine.research import ResearchRefinement
from sphinx_nvs.render import reconstruct, render_targets
from sphinx_nvs.scene.scene import Scene

PLANNERS = ("ours", "research")

DEFAULT_QUALITY = 0.95
"""What is asked for if nobody says."""

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""


class _Clock:
    """Times stages and tells whoever asked for progress."""

    def __init__(self, progress: Progress | None, before: dict[str, float] | None = None) -> None:
        self.report: Progress = progress or (lambda stage, done, total: None)
        self.stages_s = dict(before or {})

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self.report(stage, 0, 1)
        started = time.perf_counter()
        yield
        self.stages_s[stage] = time.perf_counter() - started
        self.report(stage, 1, 1)

    @contextmanager
    def adding(self, stage: str) -> Iterator[None]:
        """Adds to a stage's time without telling anybody."""
        started = time.perf_counter()
        yield
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + time.perf_counter() - started


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request after stages 1 to 3: all that plans are made from.

    Args:
        scene: the context views.
        targets: the cameras asked for.
        render: the regressor's picture of them.
        assessment: what stage 3 found.
        stages_s: seconds each stage took.
        known: views that the denoiser is given, where they are others than the scene's, see `windows`.
        reference: cameras whose middle is the middle of the denoiser's world; None for the request's own.
        probe: what the denoiser's first call showed; None before, and where no profile asks for it.
    """

    scene: Scene
    targets: Cameras
    render: Render
    assessment: Assessment
    stages_s: dict[str, float]
    known: Scene | None = None
    reference: Cameras | None = None
    probe: Probe | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """Frames, and how they came about.

    Args:
        frames: sRGB in [0, 1], one per target camera.
        prepared: render and assessment behind them.
        plan: what was computed.
        steps: one report per solver step taken.
        stages_s: seconds each stage took.
        seed: of the noise.
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
    """A request after stage 4, ready to run."""

    prepared: Prepared
    plan: ComputePlan


@dataclass(kw_only=True)
class Running:
    """A request in stage 6: whoever holds it pulls its steps.

    Args:
        prepared: stages 1 to 3.
        plan: stage 4.
        seed: of the noise.
        clock: times the stages.
        z_render: latents of the renders; None if nothing is refined.
        refinement: the loop; None if nothing is refined.
        steps: one report per step taken so far.
    """

    prepared: Prepared
    plan: ComputePlan
    seed: int
    clock: _Clock
    z_render: Float[Tensor, "V C h w"] | None = None
    refinement: Refinement | ResearchRefinement | None = None
    steps: list[StepReport] = field(default_factory=list)

    @property
    def steps_left(self) -> int:
        """How many steps there are to pull."""
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
        """Notes a step that was taken together with other requests', see `step_together`."""
        self.steps.append(report)
        self.clock.report("refine", len(self.steps), len(self.steps) + self.steps_left)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pair of models and the rules that join them.

    Args:
        regressor: renders at once.
        denoiser: refines.
        profile: rules fitted for this pair.
        cost_model: this machine's seconds; without it plans predict none, and deadlines cannot be asked for.
        num_steps: solver steps of full diffusion.
        assess_config: signals of stage 3.
        plan_config: thresholds and levers of stage 4.
        planner: who makes plans of method `sphinx`: `ours`, or `research`, as the paper's released code would.
        keep_detail: whether refined pixels get back the render's detail that the autoencoder drops; for small ones.
        cache_bytes: memory for features that stage 6 keeps between network calls; see `Refinement`.
    """

    regressor: Regressor
    denoiser: Denoiser
    profile: AnyProfile = PAPER_PROFILE
    cost_model: CostModel | None = None
    num_steps: int = 50
    assess_config: AssessConfig = field(default_factory=AssessConfig)
    plan_config: PlanConfig = field(default_factory=PlanConfig)
    planner: str = "ours"
    keep_detail: bool = False
    cache_bytes: float = math.inf

    def __post_init__(self) -> None:
        if self.planner not in PLANNERS:
            raise InputError("planner", f"'{self.planner}' is unknown", f"choose {' or '.join(PLANNERS)}")

    def __call__(
        self,
        scene: Scene,
        targets: Cameras,
        *,
        method: str = "sphinx",
        quality: float | None = None,
        deadline_s: float | None = None,
        min_quality: float = 0.0,
        strict: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Result:
        """Plans and runs; see `plan` and `run`."""
        planned = self.plan(
            scene,
            targets,
            method=method,
            quality=quality,
            deadline_s=deadline_s,
            min_quality=min_quality,
            strict=strict,
            seed=seed,
            progress=progress,
        )
        return self.run(planned, seed=seed, progress=progress)

    @torch.inference_mode()
    def prepare(
        self,
        scene: Scene,
        targets: Cameras,
        progress: Progress | None = None,
        reconstruction: Reconstruction | None = None,
    ) -> Prepared:
        """Stages 1 to 3; a reconstruction of this scene spares stage 1.

        Raises:
            InputError: too few context views, no targets, targets that see nothing, or a size the denoiser cannot take.
        """
        self._check_size(targets)
        clock = _Clock(progress)
        if reconstruction is None:
            with clock("reconstruct"):
                reconstruction = reconstruct(self.regressor, scene)
        with clock("render"):
            render = render_targets(reconstruction, targets)
        with clock("assess"):
            assessment = assess(scene, targets, render, self.assess_config)
        return Prepared(scene=scene, targets=targets, render=render, assessment=assessment, stages_s=clock.stages_s)

    def plan(
        self,
        scene: Scene,
        targets: Cameras,
        *,
        method: str = "sphinx",
        quality: float | None = None,
        deadline_s: float | None = None,
        min_quality: float = 0.0,
        strict: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> PlannedRequest:
        """Stages 1 to 4: what `run` would compute, and what that is predicted to take and to be like.

        Args:
            scene: the context views.
            targets: the cameras asked for.
            method: `sphinx`, or `diffusion` or `regression` whatever the wish.
            quality: to reach, 0..1; None is `DEFAULT_QUALITY`, or with a deadline the best that it allows.
            deadline_s: seconds from now by which frames shall be there.
            min_quality: floor under the deadline, 0..1.
            strict: whether a deadline that cannot be met is an error, instead of the nearest plan.
            seed: of the noise that the denoiser looks at the request with; give `run` the same.
            progress: told of stages.

        Raises:
            InputError: see `prepare` and `plan_prepared`.
        """
        started = time.perf_counter()
        if strict and deadline_s is not None:
            self._check_deadline(scene, targets, deadline_s)
        prepared = self.prepare(scene, targets, progress)
        within_s = None if deadline_s is None else deadline_s - (time.perf_counter() - started)
        return self.plan_prepared(
            prepared,
            method=method,
            quality=quality,
            within_s=within_s,
            min_quality=min_quality,
            strict=strict,
            seed=seed,
        )

    def plan_prepared(
        self,
        prepared: Prepared,
        *,
        method: str = "sphinx",
        quality: float | None = None,
        within_s: float | None = None,
        min_quality: float = 0.0,
        strict: bool = False,
        seed: int = 0,
    ) -> PlannedRequest:
        """Stage 4; with a fitted profile after a first call of the denoiser, whose outcome goes with the plan.

        Args:
            prepared: stages 1 to 3.
            method: see `plan`.
            quality: see `plan`.
            within_s: seconds that stages 4 to 7 may take.
            min_quality: see `plan`.
            strict: see `plan`.
            seed: see `plan`.

        Raises:
            InputError: a number outside its range, a quality that the planner has no rules for, a deadline that nobody
                knows this machine's speed for, or, if `strict`, one that cannot be met.
        """
        if quality is None and within_s is None:
            quality = DEFAULT_QUALITY
        wish = Wish(quality=quality, within_s=within_s, min_quality=min_quality, strict=strict)
        timing = None if self.cost_model is None else self._timing(prepared)
        if wish.within_s is not None and timing is None and method == "sphinx":
            mend = "give the pipeline a cost_model, see profiling.calibrated; or ask for a quality"
            raise InputError("deadline", "this machine's speed was never measured", mend)
        if method == "sphinx" and self.planner == "ours" and isinstance(self.profile, FittedProfile):
            return self._plan_fitted(prepared, self.profile, wish, timing, seed)
        plan = self._plan_by_rules(prepared, method, wish, timing)
        return PlannedRequest(prepared=prepared, plan=_with_seconds(plan, timing))

    def _plan_fitted(
        self, prepared: Prepared, profile: FittedProfile, wish: Wish, timing: Timing | None, seed: int
    ) -> PlannedRequest:
        """By tables. A deadline that is too short for a first call keeps the render."""
        started = time.perf_counter()
        sigmas = self.denoiser.sigmas(self.num_steps)
        looks = profile.signal == CHANGE
        if looks and wish.within_s is not None and self.cost_model is not None and not wish.min_quality:
            size = {"views": len(prepared.targets), "height": prepared.targets.height, "width": prepared.targets.width}
            needs = self.cost_model.probe_seconds(num_context=_num_known(prepared), **size).median
            if needs > wish.within_s:
                return PlannedRequest(prepared=prepared, plan=self._kept(prepared, wish, needs))
        region = cell_means(prepared.assessment.uncertainty, self.denoiser.factor)
        if looks:
            prepared = self.probed(prepared, seed)
            assert prepared.probe is not None
            timing = None if self.cost_model is None else self._timing(prepared, probed=True)
            region = cell_means(prepared.probe.change, self.denoiser.factor)
        signals = Signals(region=region, scores=prepared.assessment.quality, descriptor=prepared.assessment.descriptor)
        if wish.within_s is not None:
            wish = replace(wish, within_s=wish.within_s - (time.perf_counter() - started))
        plan = plan_fitted(
            profile,
            signals,
            sigmas,
            wish,
            solver=self.plan_config.solver,
            temperature=self.plan_config.temperature,
            timing=timing,
        )
        return PlannedRequest(prepared=prepared, plan=plan)

    def _kept(self, prepared: Prepared, wish: Wish, needs_s: float) -> ComputePlan:
        """The render, because there is no time for more."""
        found = f"{wish.within_s or 0:.2f} s are left, the least refinement needs {needs_s:.2f} s"
        if wish.strict:
            raise InputError("deadline", found, "allow more time, or take the render: leave strict out")
        plan = self._make_plan(prepared, "regression", 0.0)
        return replace(plan, reason=f"deadline: {found}; the render stands")

    def _plan_by_rules(self, prepared: Prepared, method: str, wish: Wish, timing: Timing | None) -> ComputePlan:
        """By score rules: the asked quality, or the best of whole hundredths that the deadline allows."""
        asked = 1.0 if wish.quality is None else wish.quality
        if wish.within_s is None or timing is None or method != "sphinx":
            return self._make_plan(prepared, method, asked)
        levels = [q / 100 for q in range(100, 79, -1) if q / 100 <= asked] or [asked]
        for quality in levels:
            plan = self._make_plan(prepared, method, quality)
            if timing(plan).p95 <= wish.within_s or quality < wish.min_quality:
                return plan
        return self._kept(prepared, wish, timing(plan).p95)

    def _make_plan(self, prepared: Prepared, method: str, quality: float) -> ComputePlan:
        sigmas = self.denoiser.sigmas(self.num_steps)
        if self.planner == "research" and method == "sphinx":
            return research_plan(
                research_assess(prepared.scene, prepared.render, prepared.assessment.quality),
                sigmas,
                self.denoiser.factor,
                quality=quality,
                arithmetic=arithmetic_for(self.denoiser),
                temperature=self.plan_config.temperature,
            )
        return make_plan(
            prepared.assessment,
            sigmas,
            self.denoiser.factor,
            method=method,
            quality=quality,
            profile=self.profile if isinstance(self.profile, Profile) else PAPER_PROFILE,
            config=self.plan_config,
        )

    def _timing(self, prepared: Prepared, *, probed: bool = False) -> Timing:
        """Seconds of stages 5 to 7 of this request's plans, or of what the denoiser's first call left of them."""
        assert self.cost_model is not None
        return partial(self.cost_model.plan_seconds, num_context=_num_known(prepared), probed=probed)

    def _check_deadline(self, scene: Scene, targets: Cameras, deadline_s: float) -> None:
        """Raises where the render alone would be late."""
        if self.cost_model is None:
            return
        needs = self.cost_model.regression_seconds(
            num_context=len(scene.images), views=len(targets), height=targets.height, width=targets.width
        )
        if needs.median > deadline_s:
            found = f"it is {deadline_s:g} s, the render alone takes {needs.median:.2f} s"
            raise InputError("deadline", found, "allow more time")

    @torch.inference_mode()
    def probed(self, prepared: Prepared, seed: int = 0) -> Prepared:
        """The request with what the denoiser's first call shows, see `refine.probe`; unchanged if it has that."""
        if prepared.probe is not None:
            return prepared
        z_render, conditioning = self._encoded(prepared)
        look = probe(
            self.denoiser,
            conditioning,
            z_render,
            prepared.render,
            self.denoiser.sigmas(self.num_steps),
            seed=seed,
            cache_bytes=self.cache_bytes,
            detail_of=prepared.assessment.uncertainty if self.keep_detail else None,
        )
        return replace(prepared, probe=look)

    def _encoded(self, prepared: Prepared) -> tuple[Tensor, Any]:
        """Latents of the renders, and all that stays constant over the steps."""
        if prepared.probe is not None:
            return prepared.probe.z_render, prepared.probe.conditioning
        z_render = self.denoiser.encode(prepared.render.rgb)
        known = prepared.known or prepared.scene
        return z_render, self.denoiser.condition(
            known, prepared.targets, prepared.render, z_render, reference=prepared.reference
        )

    def run(self, planned: PlannedRequest, *, seed: int = 0, progress: Progress | None = None) -> Result:
        """Stages 5 to 7 of what `plan` planned; see `run_plan`."""
        return self.run_plan(planned.prepared, planned.plan, seed=seed, progress=progress)

    def run_plan(
        self, prepared: Prepared, plan: ComputePlan, *, seed: int = 0, progress: Progress | None = None
    ) -> Result:
        """Stages 5 to 7; the same plan and seed give the same frames, bit for bit, on the same machine."""
        running = self.begin(prepared, plan, seed=seed, progress=progress)
        while running.steps_left:
            running.step()
        return self.finish(running)

    @torch.inference_mode()
    def begin(
        self, prepared: Prepared, plan: ComputePlan, *, seed: int = 0, progress: Progress | None = None
    ) -> Running:
        """Stage 5, and stage 6 up to its first step: whoever serves several requests pulls their steps in turn.

        Raises:
            InputError: the plan is for other view counts or sizes.
        """
        clock = _Clock(progress, prepared.stages_s)
        running = Running(prepared=prepared, plan=plan, seed=seed, clock=clock)
        if plan.first_step == plan.num_steps:
            return running
        with clock("encode"):
            running.z_render, conditioning = self._encoded(prepared)
        clock.report("refine", 0, running.plan.num_steps - running.plan.first_step)
        with clock.adding("refine"):
            first = None if prepared.probe is None else prepared.probe.claim(plan, seed)
            running.refinement = begin_refinement(
                self.denoiser, conditioning, running.z_render, plan, seed, self.cache_bytes, first
            )
        return running

    @torch.inference_mode()
    def finish(self, running: Running) -> Result:
        """Stage 7, once no steps are left."""
        prepared, plan, clock = running.prepared, running.plan, running.clock
        render = prepared.render
        frames = render.rgb
        if running.refinement is not None and running.z_render is not None:
            with clock("decode"):
                ever_active = plan.start_step < plan.num_steps
                # The networks may work on another device than the request lies on.
                decoded = self.denoiser.decode(running.refinement.latents).to(render.rgb.device)
                if self.keep_detail:
                    round_trip = prepared.probe.round_trip if prepared.probe is not None else None
                    if round_trip is None:
                        round_trip = self.denoiser.decode(running.z_render).to(render.rgb.device)
                    decoded = restore_detail(decoded, round_trip, render.rgb, prepared.assessment.uncertainty)
                frames = blend_held(decoded, render.rgb, ever_active)
        return Result(
            frames=frames,
            prepared=prepared,
            plan=plan,
            steps=running.steps,
            stages_s=clock.stages_s,
            seed=running.seed,
            full_steps=self.num_steps,
        )

    def _check_size(self, targets: Cameras) -> None:
        multiple = self.denoiser.size_multiple
        if targets.height % multiple or targets.width % multiple:
            raise InputError(
                "size",
                f"{targets.width}x{targets.height} is no multiple of {multiple}",
                f"give sides that are multiples of {multiple} pixels, e.g. "
                f"{_nearest(targets.width, multiple)}x{_nearest(targets.height, multiple)}",
            )


def _nearest(length: int, multiple: int) -> int:
    return max(multiple, round(length / multiple) * multiple)


def _num_known(prepared: Prepared) -> int:
    """Context views that the denoiser is given."""
    return len((prepared.known or prepared.scene).images)


def _with_seconds(plan: ComputePlan, timing: Timing | None) -> ComputePlan:
    """The plan with this machine's seconds, where they are known."""
    if timing is None:
        return plan
    seconds = timing(plan)
    compute = plan.active_share
    return replace(
        plan,
        predicted=Prediction(quality=plan.quality, compute=compute, seconds=seconds.median, seconds_p95=seconds.p95),
    )
