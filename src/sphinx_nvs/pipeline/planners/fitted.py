"""Planning by a fitted profile: the denoiser's first call, tables, and a search along the front."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sphinx_nvs.assess.change import cell_means, contrast
from sphinx_nvs.pipeline.encoding import probed
from sphinx_nvs.pipeline.planners.planner import PlanningContext
from sphinx_nvs.pipeline.request import PlannedRequest, Prepared
from sphinx_nvs.plan.cost_model import Seconds
from sphinx_nvs.plan.profile import CHANGE, CONTRAST, UNCERTAINTY, FittedProfile
from sphinx_nvs.plan.profile_plan import Options, Signals
from sphinx_nvs.sampling_params import SamplingParams


@dataclass(frozen=True)
class FittedPlanner:
    """Plans by the tables of a fitted profile.

    Args:
        context: the pair of models.
        profile: the tables.
    """

    context: PlanningContext
    profile: FittedProfile

    def plan(self, prepared: Prepared, params: SamplingParams) -> PlannedRequest:
        """See `Planner.plan`; a deadline that is too short for the probe keeps the render."""
        self.context.check_cost_model(params)
        started = time.perf_counter()
        needs = self._probe_seconds(prepared)
        # With a floor the probe runs in any case: a floor holds against any deadline.
        if params.deadline_s is not None and not params.min_quality and needs and needs.p95 > params.deadline_s:
            plan = self.context.render_plan(prepared, params, needs.p95)
            return PlannedRequest(prepared=prepared, plan=plan, params=params)
        prepared = self._probed(prepared, params.seed)
        probed_s = time.perf_counter() - started
        # Other work that slows this machine down during the probe will still be there in a moment.
        options = self._options(prepared, pace=max(1.0, probed_s / needs.median) if needs else 1.0)
        left = params.after(time.perf_counter() - started)
        index, why = options.choose(left)
        return PlannedRequest(prepared=prepared, plan=options.plan(index, left, why), params=params)

    def options(self, prepared: Prepared, seed: int) -> Options | None:
        """See `Planner.options`."""
        return self._options(self._probed(prepared, seed))

    def _probed(self, prepared: Prepared, seed: int) -> Prepared:
        """The request with its probe, where the profile reads one."""
        context = self.context
        if self.profile.signal == UNCERTAINTY:
            return prepared
        return probed(
            context.denoiser,
            prepared,
            signal=self.profile.signal,
            num_steps=context.num_steps,
            seed=seed,
            cache_bytes=context.cache_bytes,
        )

    def _probe_seconds(self, prepared: Prepared) -> Seconds | None:
        """Seconds of the probe; None where none is made or its time is unknown."""
        cost_model = self.context.cost_model
        if cost_model is None or self.profile.signal == UNCERTAINTY or prepared.probe is not None:
            return None
        targets = prepared.targets
        size = {"views": len(targets), "height": targets.height, "width": targets.width}
        called = self.profile.signal == CHANGE
        return cost_model.probe_seconds(num_context=prepared.num_known, called=called, **size)

    def _options(self, prepared: Prepared, pace: float = 1.0) -> Options:
        context = self.context
        signal = prepared.assessment.uncertainty if prepared.probe is None else prepared.probe.change
        region = cell_means(signal, context.denoiser.factor)
        if self.profile.score == CONTRAST:
            scores = cell_means(contrast(prepared.render.rgb), context.denoiser.factor)
        else:
            scores = prepared.assessment.quality.to(region.device).view(-1, 1, 1).expand_as(region)
        return Options.of(
            self.profile,
            Signals(region=region, scores=scores, descriptor=prepared.assessment.descriptor),
            context.sigmas(),
            solver=context.config.solver,
            temperature=context.config.temperature,
            timing=context.timing(prepared, pace),
        )
