"""The protocol of planners, and the models and rules that they plan with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Denoiser
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared
from sphinx_nvs.plan import ComputePlan, PlanConfig, uniform_plan
from sphinx_nvs.plan.compute_plan import Prediction
from sphinx_nvs.plan.cost_model import CostModel
from sphinx_nvs.plan.profile import AnyProfile
from sphinx_nvs.plan.profile_plan import Options, Timing
from sphinx_nvs.sampling_params import SamplingParams


@runtime_checkable
class Planner(Protocol):
    """Makes the plan of a prepared request."""

    def plan(self, prepared: Prepared, params: SamplingParams) -> PlannedRequest:
        """Plans stages 5 to 8.

        Args:
            prepared: stages 1 to 3.
            params: quality, deadline and seed; the deadline counts from now.

        Raises:
            InputError: a quality that the planner has no rules for, a deadline without a cost model, or with `strict`
                one that cannot be met.
        """
        ...

    def options(self, prepared: Prepared, seed: int) -> Options | None:
        """Every plan worth making of this request; None where a planner knows no alternatives."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlanningContext:
    """The models and rules that planners plan with.

    Args:
        denoiser: the denoiser that runs the plans.
        profile: rules fitted for the pair.
        cost_model: seconds on this machine; None where they were never measured.
        num_steps: solver steps of full diffusion.
        config: thresholds and levers.
        cache_bytes: see `Refinement`.
    """

    denoiser: Denoiser
    profile: AnyProfile
    cost_model: CostModel | None
    num_steps: int
    config: PlanConfig
    cache_bytes: float

    def sigmas(self) -> Float[Tensor, "L"]:
        """The denoiser's own grid."""
        return self.denoiser.sigmas(self.num_steps)

    def timing(self, prepared: Prepared, pace: float = 1.0) -> Timing | None:
        """Seconds of stages 5 to 8 of this request's plans, without what the probe has done already.

        Args:
            prepared: the request.
            pace: measured over predicted seconds at the moment; above 1 on a busy machine.
        """
        if self.cost_model is None:
            return None
        of_plan = partial(
            self.cost_model.plan_seconds,
            num_context=prepared.num_known,
            opened=prepared.probe is not None,
            called=prepared.probe is not None and prepared.probe.called,
        )
        return lambda plan: of_plan(plan).times(pace)

    def check_cost_model(self, params: SamplingParams) -> None:
        """Raises InputError for a deadline where this machine was never measured."""
        if params.deadline_s is not None and self.cost_model is None:
            hint = "give the pipeline a cost_model, see profiling.calibrated; or give a quality"
            raise InputError("deadline_s", "this machine's speed was never measured", hint)

    def uniform(self, prepared: Prepared, start_step: int, reason: str) -> ComputePlan:
        """The plan in which every cell starts at `start_step`."""
        uncertainty = prepared.assessment.uncertainty
        views, height, width = uncertainty.shape
        return uniform_plan(
            (views, height // self.denoiser.factor, width // self.denoiser.factor),
            self.sigmas(),
            start_step,
            reason=reason,
            profile=self.profile.name,
            config=self.config,
            device=uncertainty.device,
        )

    def render_plan(self, prepared: Prepared, params: SamplingParams, needs_s: float) -> ComputePlan:
        """The plan that keeps the render, for a deadline that leaves no time for more.

        Args:
            prepared: the request.
            params: the request's deadline.
            needs_s: seconds that the cheapest refinement takes.

        Raises:
            InputError: the deadline is strict.
        """
        found = f"{params.deadline_s or 0:.2f} s are left, the least refinement needs {needs_s:.2f} s"
        if params.strict:
            raise InputError("deadline_s", found, "allow more time, or leave strict out and take the render")
        return self.uniform(prepared, self.num_steps, f"deadline: {found}; the render stands")


def with_seconds(plan: ComputePlan, timing: Timing | None) -> ComputePlan:
    """The plan with this machine's seconds as its prediction, where they are known."""
    if timing is None:
        return plan
    seconds = timing(plan)
    return replace(
        plan,
        predicted=Prediction(
            quality=plan.quality, compute=plan.active_share, seconds=seconds.median, seconds_p95=seconds.p95
        ),
    )
