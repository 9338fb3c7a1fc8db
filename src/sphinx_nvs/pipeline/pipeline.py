"""The life of a request: scene and cameras in, frames out. Read this file first.

    1. reconstruct   the regressor understands the context views               models/planesweep, ...
    2. render        it shows every target view: rgb, alpha, depth, confidence  render/
    3. assess        where is that uncertain, how good is each view            assess/
    4. plan          from which step on is each latent cell denoised           plan/
    5. encode        renders and context views become latents                  models/autoencoder, ...
    6. refine        the denoising loop, step by step                          refine/
    7. decode        latents become frames, held regions keep the render,      models/autoencoder, refine/
                     neighbouring frames are brought to agree

Regression alone and full diffusion are not other code paths: they are other plans.

A request on its way is in request.py, stage 4's choice of a planner in planning.py.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sphinx_nvs.assess import AssessConfig, assess
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Denoiser, Reconstruction, Regressor, agreed_frames, decode_frames
from sphinx_nvs.pipeline.planner import RequestPlanner
from sphinx_nvs.pipeline.render import reconstruct, render_targets
from sphinx_nvs.pipeline.request import Clock, PlannedRequest, Prepared, Progress, Result, Running
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan, PlanConfig
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.plan.fitted import Options, Wish
from sphinx_nvs.plan.profile import AnyProfile
from sphinx_nvs.refine import blend_held, probe
from sphinx_nvs.released_code.loop import begin_refinement
from sphinx_nvs.scene.scene import Scene

DEFAULT_QUALITY = 0.95
"""What is asked for if nobody says."""


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
    cache_bytes: float = math.inf

    def __post_init__(self) -> None:
        # A planner that cannot be is told now, not at the first request.
        _ = self._planner

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
        clock = Clock(progress)
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
            min_quality: floor under the deadline, and under rounding, 0..1.
            strict: whether a deadline that cannot be met is an error, instead of the nearest plan.
            seed: of the noise that the denoiser looks at the request with; give `run` the same.
            progress: told of stages.

        Raises:
            InputError: see `prepare` and `plan_prepared`.
        """
        started = time.perf_counter()
        if strict and deadline_s is not None:
            self._planner.check_deadline(
                num_context=len(scene.images),
                views=len(targets),
                height=targets.height,
                width=targets.width,
                deadline_s=deadline_s,
            )
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
            quality = max(DEFAULT_QUALITY, min_quality)
        wish = Wish(quality=quality, within_s=within_s, min_quality=min_quality, strict=strict)
        return self._planner.plan(prepared, wish, method, seed)

    @property
    def _planner(self) -> RequestPlanner:
        """Whoever makes this pair's plans."""
        return RequestPlanner(
            denoiser=self.denoiser,
            profile=self.profile,
            cost_model=self.cost_model,
            num_steps=self.num_steps,
            config=self.plan_config,
            planner=self.planner,
            look=self.probed,
        )

    def options(self, prepared: Prepared, seed: int = 0) -> Options | None:
        """Every plan worth making of this request, from the render to full diffusion; None where score rules plan.

        Args:
            prepared: stages 1 to 3.
            seed: see `plan`.
        """
        return self._planner.options(prepared, seed)

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
        clock = Clock(progress, prepared.stages_s)
        running = Running(prepared=prepared, plan=plan, seed=seed, clock=clock)
        if plan.first_step == plan.num_steps:
            return running
        with clock("encode"):
            z_render, running.conditioning = self._encoded(prepared)
        clock.report("refine", 0, running.plan.num_steps - running.plan.first_step)
        with clock.adding("refine"):
            first = None if prepared.probe is None else prepared.probe.claim(plan, seed)
            running.refinement = begin_refinement(
                self.denoiser, running.conditioning, z_render, plan, seed, self.cache_bytes, first
            )
        return running

    @torch.inference_mode()
    def finish(self, running: Running) -> Result:
        """Stage 7, once no steps are left."""
        prepared, plan, clock = running.prepared, running.plan, running.clock
        render = prepared.render
        frames = render.rgb
        if running.refinement is not None:
            with clock("decode"):
                ever_active = plan.start_step < plan.num_steps
                # The networks may work on another device than the request lies on.
                views = ever_active.flatten(1).any(1).nonzero()[:, 0]
                refined, chosen = running.refinement, views.tolist()
                latents, estimate = refined.latents, refined.estimate
                if prepared.probe is not None:
                    decoded = prepared.probe.decoded(self.denoiser, latents, chosen, estimate)
                else:
                    decoded = decode_frames(self.denoiser, latents, running.conditioning, chosen, estimate)
                frames = frames.clone()
                frames[views] = blend_held(decoded.to(frames.device), frames[views], ever_active[views])
                agreed = agreed_frames(self.denoiser, frames, running.conditioning, chosen)
                frames[views] = blend_held(agreed.to(frames.device), frames[views], ever_active[views])
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
