"""The life of a request: scene and cameras in, frames out. Read this file first.

    1. reconstruct   the regressor reads the context views                      models/planesweep, ...
    2. render        it shows every target view: rgb, alpha, depth, confidence  pipeline/regression.py
    3. assess        where is that uncertain, how good is each view             assess/
    4. plan          from which step on is each latent cell denoised            pipeline/planners/, plan/
    5. encode        renders and context views become latents                   pipeline/encoding.py, models/
    6. refine        the denoising loop, step by step                           refine/
    7. decode        latents become frames                                      models/
    8. blend         held regions keep the render; neighbouring frames agree    refine/, models/

Regression alone and full diffusion are not other code paths: they are other plans. The values that pass between stages
are in request.py; quality, deadline and seed travel as one `SamplingParams`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.assess import AssessConfig, assess
from sphinx_nvs.assess.support import soft_frames_warning
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Denoiser, Reconstruction, Regressor, consistent_frames, decode_frames
from sphinx_nvs.pipeline.encoding import encoded, probed
from sphinx_nvs.pipeline.planners import Planner, PlanningContext, planners_for
from sphinx_nvs.pipeline.regression import reconstruct, render_targets
from sphinx_nvs.pipeline.request import Clock, PlannedRequest, Prepared, Progress, Result, Running
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan, PlanConfig
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.plan.profile import CHANGE, AnyProfile
from sphinx_nvs.plan.profile_plan import Options
from sphinx_nvs.refine import blend_held
from sphinx_nvs.released_code.loop import begin_refinement
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pair of models and the rules that join them.

    Args:
        regressor: renders every target view in one pass.
        denoiser: refines the renders.
        profile: planning rules fitted for this pair.
        cost_model: seconds on this machine; without it plans predict none, and a deadline is an error.
        num_steps: solver steps of full diffusion.
        assess_config: signals of stage 3.
        plan_config: thresholds and levers of stage 4.
        planner: planner of method `sphinx`, one of `planners.PLANNERS`.
        cache_bytes: memory for features that stage 6 keeps between network calls; see `Refinement`.

    Raises:
        InputError: an unknown planner.
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
    _planners: Mapping[str, Planner] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        context = PlanningContext(
            denoiser=self.denoiser,
            profile=self.profile,
            cost_model=self.cost_model,
            num_steps=self.num_steps,
            config=self.plan_config,
            cache_bytes=self.cache_bytes,
        )
        # The dataclass is frozen; planners are made once here, and not at each request.
        object.__setattr__(self, "_planners", planners_for(self.planner, context))

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
        """All stages: frames of `targets`.

        Args:
            scene: the context views.
            targets: the cameras to render.
            method: see `SamplingParams`.
            quality: see `SamplingParams`.
            deadline_s: see `SamplingParams`.
            min_quality: see `SamplingParams`.
            strict: see `SamplingParams`.
            seed: see `SamplingParams`.
            progress: called with each stage's name, how much of it is done, and how much there is.

        Raises:
            InputError: see `SamplingParams`, `prepare` and `plan_prepared`.
        """
        params = SamplingParams(
            method=method, quality=quality, deadline_s=deadline_s, min_quality=min_quality, strict=strict, seed=seed
        )
        return self.run(self.plan(scene, targets, params, progress=progress), progress=progress)

    @torch.inference_mode()
    def prepare(
        self,
        scene: Scene,
        targets: Cameras,
        progress: Progress | None = None,
        reconstruction: Reconstruction | None = None,
    ) -> Prepared:
        """Stages 1 to 3.

        Args:
            scene: the context views.
            targets: the cameras to render.
            progress: see `__call__`.
            reconstruction: a reconstruction of this scene, which makes stage 1 unnecessary.

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
        params: SamplingParams | None = None,
        *,
        progress: Progress | None = None,
    ) -> PlannedRequest:
        """Stages 1 to 4: what `run` would compute, with predicted quality and seconds.

        Args:
            scene: the context views.
            targets: the cameras to render.
            params: quality, deadline and seed; None for the defaults.
            progress: see `__call__`.

        Raises:
            InputError: see `check_deadline`, `prepare` and `plan_prepared`.
        """
        started, params = time.perf_counter(), params or SamplingParams()
        self.check_deadline(scene, targets, params)
        prepared = self.prepare(scene, targets, progress)
        # Stages 1 to 3 have used a part of the deadline.
        return self.plan_prepared(prepared, params.after(time.perf_counter() - started))

    def check_deadline(self, scene: Scene, targets: Cameras, params: SamplingParams) -> None:
        """Raises InputError for a strict deadline that the render alone would miss."""
        if not params.strict or params.deadline_s is None or self.cost_model is None:
            return
        needs = self.cost_model.regression_seconds(
            num_context=len(scene.images), views=len(targets), height=targets.height, width=targets.width
        )
        if needs.median > params.deadline_s:
            found = f"it is {params.deadline_s:g} s, the render alone takes {needs.median:.2f} s"
            raise InputError("deadline_s", found, "allow more time, or leave strict out and take the render")

    def plan_prepared(self, prepared: Prepared, params: SamplingParams | None = None) -> PlannedRequest:
        """Stage 4; a fitted profile first makes its probe, whose outcome goes with the plan.

        Args:
            prepared: stages 1 to 3.
            params: quality, deadline and seed; the deadline is for stages 4 to 8. None for the defaults.

        Raises:
            InputError: a quality that the planner has no rules for, a deadline without a cost model, or with `strict`
                one that cannot be met.
        """
        params, started = params or SamplingParams(), time.perf_counter()
        planned = _with_planning_time(self._planners[params.method].plan(prepared, params), prepared, started)
        warning = soft_frames_warning(prepared.render)
        if warning is None:
            return planned
        return replace(planned, plan=replace(planned.plan, reason=f"{planned.plan.reason}; {warning}"))

    def options(self, prepared: Prepared, seed: int = 0) -> Options | None:
        """Every plan worth making of this request, from the render to full diffusion; None where score rules plan.

        Args:
            prepared: stages 1 to 3.
            seed: see `SamplingParams`.
        """
        return self._planners["sphinx"].options(prepared, seed)

    def probed(self, prepared: Prepared, seed: int = 0, *, signal: str = CHANGE) -> Prepared:
        """The request with a probe, see `refine.probe`; unchanged if it has one."""
        steps, memory = self.num_steps, self.cache_bytes
        return probed(self.denoiser, prepared, signal=signal, num_steps=steps, seed=seed, cache_bytes=memory)

    def run(self, planned: PlannedRequest, *, progress: Progress | None = None) -> Result:
        """Stages 5 to 8 of a planned request, with its own seed; see `run_plan`."""
        return self.run_plan(planned.prepared, planned.plan, seed=planned.params.seed, progress=progress)

    def run_plan(
        self, prepared: Prepared, plan: ComputePlan, *, seed: int = 0, progress: Progress | None = None
    ) -> Result:
        """Stages 5 to 8; the same plan and seed give the same frames, bit for bit, on the same machine."""
        running = self.begin(prepared, plan, seed=seed, progress=progress)
        while running.steps_left:
            running.step()
        return self.finish(running)

    @torch.inference_mode()
    def begin(
        self, prepared: Prepared, plan: ComputePlan, *, seed: int = 0, progress: Progress | None = None
    ) -> Running:
        """Stage 5, and stage 6 up to its first step; the caller pulls the steps, of several requests in turn.

        Raises:
            InputError: the plan is for other view counts or sizes.
        """
        clock = Clock(progress, prepared.stages_s)
        running = Running(prepared=prepared, plan=plan, seed=seed, clock=clock)
        # The render alone: nothing is encoded, and the denoiser is not touched.
        if plan.first_step == plan.num_steps:
            return running
        with clock("encode"):
            z_render, running.conditioning = encoded(self.denoiser, prepared)
        running.z_render = z_render
        if not plan.network:
            return running
        clock.report("refine", 0, running.plan.num_steps - running.plan.first_step)
        with clock.adding("refine"):
            first = None if prepared.probe is None else prepared.probe.claim(plan, seed)
            running.refinement = begin_refinement(
                self.denoiser, running.conditioning, z_render, plan, seed, self.cache_bytes, first
            )
        return running

    @torch.inference_mode()
    def finish(self, running: Running) -> Result:
        """Stages 7 and 8, once no steps are left."""
        frames, refined = running.prepared.render.rgb, running.refinement
        if running.z_render is not None:
            with running.clock("decode"):
                latents, estimate = running.z_render, None
                if refined is not None:
                    latents, estimate = refined.latents, refined.estimate
                frames = self._decoded(running, latents, estimate)
        return Result(
            frames=frames,
            prepared=running.prepared,
            plan=running.plan,
            steps=running.steps,
            stages_s=running.clock.stages_s,
            seed=running.seed,
            full_steps=self.num_steps,
        )

    def _decoded(self, running: Running, latents: Tensor, estimate: Tensor | None) -> Float[Tensor, "V 3 H W"]:
        """Frames in which views with refined cells are decoded, blended and brought to agree."""
        prepared, plan, conditioning = running.prepared, running.plan, running.conditioning
        ever_active = plan.start_step < plan.num_steps
        # The networks may work on another device than the request lies on.
        views = ever_active.flatten(1).any(1).nonzero()[:, 0]
        chosen = views.tolist()
        if prepared.probe is not None:
            decoded = prepared.probe.decoded(self.denoiser, latents, chosen, estimate, plan.decoding)
        else:
            decoded = decode_frames(self.denoiser, latents, conditioning, chosen, estimate, plan.decoding)
        # A copy: the render is part of the result, and its caller may have cached it.
        frames = prepared.render.rgb.clone()
        frames[views] = blend_held(decoded.to(frames.device), frames[views], ever_active[views])
        agreed = consistent_frames(self.denoiser, frames, conditioning, chosen)
        # Blended again, since agreement may move pixels of held regions, which keep the render's.
        frames[views] = blend_held(agreed.to(frames.device), frames[views], ever_active[views])
        return frames

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


def _with_planning_time(planned: PlannedRequest, before: Prepared, started: float) -> PlannedRequest:
    """The request with the seconds of stage 4 since `started`, without those of the probe, which has its own."""
    stages_s = planned.prepared.stages_s
    probing = sum(stages_s.values()) - sum(before.stages_s.values())
    planning = time.perf_counter() - started - probing
    return replace(planned, prepared=replace(planned.prepared, stages_s={**stages_s, "plan": planning}))
