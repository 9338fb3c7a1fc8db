"""Full diffusion and the render alone: methods that leave a planner nothing to choose."""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.pipeline.planners.planner import PlanningContext, with_seconds
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared
from sphinx_nvs.plan.profile_plan import Options
from sphinx_nvs.sampling_params import SamplingParams


@dataclass(frozen=True)
class FullDiffusionPlanner:
    """Every cell is denoised from the first step on, whatever the quality or deadline."""

    context: PlanningContext

    def plan(self, prepared: Prepared, params: SamplingParams) -> PlannedRequest:
        """See `Planner.plan`."""
        return _uniform(self.context, prepared, params, 0, "method diffusion")

    def options(self, prepared: Prepared, seed: int) -> Options | None:
        """See `Planner.options`."""
        return None


@dataclass(frozen=True)
class RenderPlanner:
    """No cell is denoised, whatever the quality or deadline."""

    context: PlanningContext

    def plan(self, prepared: Prepared, params: SamplingParams) -> PlannedRequest:
        """See `Planner.plan`."""
        return _uniform(self.context, prepared, params, self.context.num_steps, "method regression")

    def options(self, prepared: Prepared, seed: int) -> Options | None:
        """See `Planner.options`."""
        return None


def _uniform(
    context: PlanningContext, prepared: Prepared, params: SamplingParams, start_step: int, reason: str
) -> PlannedRequest:
    plan = with_seconds(context.uniform(prepared, start_step, reason), context.timing(prepared))
    return PlannedRequest(prepared=prepared, plan=plan, params=params)
