"""Planning by score rules: a start step per view by its quality score, as in the paper."""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.pipeline.planners.planner import PlanningContext, with_seconds
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared
from sphinx_nvs.plan import ComputePlan, Profile, score_plan
from sphinx_nvs.plan.profile_plan import Options, Timing
from sphinx_nvs.sampling_params import SamplingParams

LEVELS = [percent / 100 for percent in range(100, 79, -1)]
"""Qualities that are tried under a deadline, best first; rules know nothing below the last."""


@dataclass(frozen=True)
class ScoreRulesPlanner:
    """Plans by a profile's score rules.

    Args:
        context: the pair of models.
        profile: the rules.
    """

    context: PlanningContext
    profile: Profile

    def plan(self, prepared: Prepared, params: SamplingParams) -> PlannedRequest:
        """See `Planner.plan`."""
        self.context.check_cost_model(params)
        timing = self.context.timing(prepared)
        return PlannedRequest(
            prepared=prepared, plan=with_seconds(self._plan(prepared, params, timing), timing), params=params
        )

    def options(self, prepared: Prepared, seed: int) -> Options | None:
        """See `Planner.options`."""
        return None

    def _plan(self, prepared: Prepared, params: SamplingParams, timing: Timing | None) -> ComputePlan:
        """The requested quality, or the best of `LEVELS` up to it that the deadline allows."""
        wanted = 1.0 if params.quality is None else params.quality
        if params.deadline_s is None or timing is None:
            return self._of_quality(prepared, wanted)
        for quality in [level for level in LEVELS if level <= wanted] or [wanted]:
            plan = self._of_quality(prepared, quality)
            if timing(plan).p95 <= params.deadline_s or quality < params.min_quality:
                return plan
        return self.context.render_plan(prepared, params, timing(plan).p95)

    def _of_quality(self, prepared: Prepared, quality: float) -> ComputePlan:
        context = self.context
        return score_plan(
            prepared.assessment,
            context.sigmas(),
            context.denoiser.factor,
            quality=quality,
            profile=self.profile,
            config=context.config,
        )
