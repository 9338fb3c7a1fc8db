"""Planning by the rules of the paper's released code, to compare with."""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.errors import InputError
from sphinx_nvs.pipeline.planners.planner import PlanningContext, with_seconds
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared
from sphinx_nvs.plan.profile_plan import Options
from sphinx_nvs.released_code.loop import arithmetic_for
from sphinx_nvs.released_code.masks import research_assess
from sphinx_nvs.released_code.released_plan import research_plan
from sphinx_nvs.sampling_params import SamplingParams


@dataclass(frozen=True)
class ReleasedCodePlanner:
    """Plans as the released code does: two qualities, no deadlines.

    Args:
        context: the pair of models.
    """

    context: PlanningContext

    def plan(self, prepared: Prepared, params: SamplingParams) -> PlannedRequest:
        """See `Planner.plan`."""
        if params.deadline_s is not None or params.quality is None:
            raise InputError("deadline_s", "the released code's planner knows no deadline", "give a quality instead")
        context = self.context
        plan = research_plan(
            research_assess(prepared.scene, prepared.render, prepared.assessment.quality),
            context.sigmas(),
            context.denoiser.factor,
            quality=params.quality,
            arithmetic=arithmetic_for(context.denoiser),
            temperature=context.config.temperature,
        )
        return PlannedRequest(prepared=prepared, plan=with_seconds(plan, context.timing(prepared)), params=params)

    def options(self, prepared: Prepared, seed: int) -> Options | None:
        """See `Planner.options`."""
        return None
