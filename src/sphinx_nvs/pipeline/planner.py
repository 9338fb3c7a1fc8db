"""Stage 4 of a request: which planner makes its plan, from what, and what this machine's seconds allow.

    fitted profile   the denoiser's first call, tables, a front           plan/fitted.py
    score rules      the paper's way: a start step per frame               plan/planner.py
    research         the released code's way, to compare with              released_code/plan.py

Shapes: V views, h w latent cells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sphinx_nvs.assess.change import cell_means, contrast
from sphinx_nvs.assess.support import soft_frames_warning
from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Denoiser
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan, PlanConfig, Profile, make_plan
from sphinx_nvs.plan.compute_plan import Prediction
from sphinx_nvs.plan.cost_model import CostModel, Seconds
from sphinx_nvs.plan.fitted import Options, Signals, Timing, Wish
from sphinx_nvs.plan.profile import CHANGE, CONTRAST, AnyProfile, FittedProfile
from sphinx_nvs.released_code.loop import arithmetic_for
from sphinx_nvs.released_code.masks import research_assess
from sphinx_nvs.released_code.plan import research_plan

PLANNERS = ("ours", "research")


@dataclass(frozen=True, kw_only=True)
class RequestPlanner:
    """Makes the plans of requests.

    Args:
        denoiser: that will run them.
        profile: rules fitted for the pair.
        cost_model: this machine's seconds; None where they were never measured.
        num_steps: solver steps of full diffusion.
        config: thresholds and levers.
        planner: of `PLANNERS`.
        look: makes the denoiser's first call for a request and a seed, see `Pipeline.probed`.
    """

    denoiser: Denoiser
    profile: AnyProfile
    cost_model: CostModel | None
    num_steps: int
    config: PlanConfig
    planner: str
    look: Callable[[Prepared, int], Prepared]

    def __post_init__(self) -> None:
        if self.planner not in PLANNERS:
            raise InputError("planner", f"'{self.planner}' is unknown", f"choose {' or '.join(PLANNERS)}")

    def plan(self, prepared: Prepared, wish: Wish, method: str, seed: int) -> PlannedRequest:
        """See `Pipeline.plan_prepared`; where frames will be soft whatever is computed, the plan's reason says so."""
        planned = self._planned(prepared, wish, method, seed)
        warning = soft_frames_warning(prepared.render)
        if warning is None:
            return planned
        return replace(planned, plan=replace(planned.plan, reason=f"{planned.plan.reason}; {warning}"))

    def _planned(self, prepared: Prepared, wish: Wish, method: str, seed: int) -> PlannedRequest:
        timing = self._timing(prepared)
        if wish.within_s is not None and timing is None and method == "sphinx":
            hint = "give the pipeline a cost_model, see profiling.calibrated; or ask for a quality"
            raise InputError("deadline", "this machine's speed was never measured", hint)
        if method == "sphinx" and self.planner == "ours" and isinstance(self.profile, FittedProfile):
            return self._fitted(prepared, self.profile, wish, seed)
        plan = self._by_rules(prepared, method, wish, timing)
        return PlannedRequest(prepared=prepared, plan=_with_seconds(plan, timing))

    def options(self, prepared: Prepared, seed: int = 0) -> Options | None:
        """All that a fitted profile offers this request, see `Options.front`; None where rules plan."""
        if self.planner != "ours" or not isinstance(self.profile, FittedProfile):
            return None
        return self._options(self._looked(prepared, self.profile, seed), self.profile)

    def check_deadline(self, *, num_context: int, views: int, height: int, width: int, deadline_s: float) -> None:
        """Raises InputError where the render alone would be late."""
        if self.cost_model is None:
            return
        needs = self.cost_model.regression_seconds(num_context=num_context, views=views, height=height, width=width)
        if needs.median > deadline_s:
            found = f"it is {deadline_s:g} s, the render alone takes {needs.median:.2f} s"
            raise InputError("deadline", found, "allow more time")

    def _fitted(self, prepared: Prepared, profile: FittedProfile, wish: Wish, seed: int) -> PlannedRequest:
        """By tables. A deadline that is too short for a first call keeps the render."""
        started = time.perf_counter()
        needs = self._looking_seconds(prepared, profile)
        if wish.within_s is not None and not wish.min_quality and needs is not None and needs.p95 > wish.within_s:
            return PlannedRequest(prepared=prepared, plan=self._kept(prepared, wish, needs.p95))
        prepared = self._looked(prepared, profile, seed)
        took_s = time.perf_counter() - started
        # Whoever keeps this machine busy now will still do so in a moment.
        options = self._options(prepared, profile, pace=max(1.0, took_s / needs.median) if needs else 1.0)
        if wish.within_s is not None:
            wish = replace(wish, within_s=wish.within_s - (time.perf_counter() - started))
        index, why = options.choose(wish)
        return PlannedRequest(prepared=prepared, plan=options.plan(index, wish, why))

    def _looked(self, prepared: Prepared, profile: FittedProfile, seed: int) -> Prepared:
        """The request with its first call, where the profile asks for it."""
        return self.look(prepared, seed) if profile.signal == CHANGE else prepared

    def _looking_seconds(self, prepared: Prepared, profile: FittedProfile) -> Seconds | None:
        """Seconds of the first call; None where there is none or nobody knows."""
        if self.cost_model is None or profile.signal != CHANGE or prepared.probe is not None:
            return None
        targets = prepared.targets
        size = {"views": len(targets), "height": targets.height, "width": targets.width}
        return self.cost_model.probe_seconds(num_context=prepared.num_known, **size)

    def _options(self, prepared: Prepared, profile: FittedProfile, pace: float = 1.0) -> Options:
        signal = prepared.assessment.uncertainty if prepared.probe is None else prepared.probe.change
        region = cell_means(signal, self.denoiser.factor)
        if profile.score == CONTRAST:
            scores = cell_means(contrast(prepared.render.rgb), self.denoiser.factor)
        else:
            scores = prepared.assessment.quality.to(region.device).view(-1, 1, 1).expand_as(region)
        signals = Signals(
            region=region,
            scores=scores,
            descriptor=prepared.assessment.descriptor,
        )
        return Options.of(
            profile,
            signals,
            self.denoiser.sigmas(self.num_steps),
            solver=self.config.solver,
            temperature=self.config.temperature,
            timing=self._timing(prepared, pace),
        )

    def _kept(self, prepared: Prepared, wish: Wish, needs_s: float) -> ComputePlan:
        """The render, because there is no time for more."""
        found = f"{wish.within_s or 0:.2f} s are left, the least refinement needs {needs_s:.2f} s"
        if wish.strict:
            raise InputError("deadline", found, "allow more time, or take the render: leave strict out")
        plan = self._by_scores(prepared, "regression", 0.0)
        return replace(plan, reason=f"deadline: {found}; the render stands")

    def _by_rules(self, prepared: Prepared, method: str, wish: Wish, timing: Timing | None) -> ComputePlan:
        """By score rules: the asked quality, or the best of whole hundredths that the deadline allows."""
        asked = 1.0 if wish.quality is None else wish.quality
        if wish.within_s is None or timing is None or method != "sphinx":
            return self._by_scores(prepared, method, asked)
        levels = [q / 100 for q in range(100, 79, -1) if q / 100 <= asked] or [asked]
        for quality in levels:
            plan = self._by_scores(prepared, method, quality)
            if timing(plan).p95 <= wish.within_s or quality < wish.min_quality:
                return plan
        return self._kept(prepared, wish, timing(plan).p95)

    def _by_scores(self, prepared: Prepared, method: str, quality: float) -> ComputePlan:
        sigmas = self.denoiser.sigmas(self.num_steps)
        if self.planner == "research" and method == "sphinx":
            return research_plan(
                research_assess(prepared.scene, prepared.render, prepared.assessment.quality),
                sigmas,
                self.denoiser.factor,
                quality=quality,
                arithmetic=arithmetic_for(self.denoiser),
                temperature=self.config.temperature,
            )
        return make_plan(
            prepared.assessment,
            sigmas,
            self.denoiser.factor,
            method=method,
            quality=quality,
            profile=self.profile if isinstance(self.profile, Profile) else PAPER_PROFILE,
            config=self.config,
        )

    def _timing(self, prepared: Prepared, pace: float = 1.0) -> Timing | None:
        """Seconds of stages 5 to 7 of this request's plans, or of what the denoiser's first call left of them.

        Args:
            prepared: the request.
            pace: how many times as long as predicted things take at the moment.
        """
        if self.cost_model is None:
            return None
        of_plan = partial(
            self.cost_model.plan_seconds, num_context=prepared.num_known, probed=prepared.probe is not None
        )
        return lambda plan: of_plan(plan).times(pace)


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
