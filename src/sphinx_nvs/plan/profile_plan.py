"""From a request's signals to a plan, by a fitted profile: quality, deadline, or both.

    quality      the way on the front whose quality is nearest, a little above, see `MARGIN` and `ROUNDING`
    deadline_s   the best way whose 95th percentile of seconds fits
    both         the first, unless it does not fit; then the second

Along the front quality and compute ascend together, so a higher quality never lowers compute and a later deadline never
lowers quality. The floor `min_quality` holds against any deadline: a request with a floor is late, not worse.

Shapes: V views, h w cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.plan.compute_plan import ComputePlan, Prediction
from sphinx_nvs.plan.cost_model import Seconds
from sphinx_nvs.plan.levers import NO_SAVINGS, economised
from sphinx_nvs.plan.profile import CHANGE, UNCERTAINTY, FittedProfile
from sphinx_nvs.plan.search import Way, front, start_map, ways
from sphinx_nvs.sampling_params import SamplingParams

MARGIN = 0.04
"""Share of the allowed loss that is held back, because delivering less than requested is worse than delivering more."""

ROUNDING = 0.2
"""Largest share of the allowed loss by which a way may miss a quality. Ways are few: if each request were rounded up,
more than requested would be delivered on average, at the cost of compute."""

Timing = Callable[[ComputePlan], Seconds]
"""Seconds of stages 5 to 8 of a plan on this machine."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Signals:
    """The inputs of a fitted profile.

    Args:
        region: the profile's region signal per cell.
        scores: the profile's score per cell.
        descriptor: scene descriptor, see `Assessment`.
    """

    region: Float[Tensor, "V h w"]
    scores: Float[Tensor, "V h w"]
    descriptor: Float[Tensor, "D"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """The front of a request, and the plan of each way on it."""

    profile: FittedProfile
    front: list[Way]
    score_bins: Tensor
    signal_bins: Tensor
    sigmas: Tensor
    solver: str
    temperature: float
    cluster: int
    timing: Timing | None

    @staticmethod
    def of(
        profile: FittedProfile,
        signals: Signals,
        sigmas: Float[Tensor, "L"],
        *,
        solver: str,
        temperature: float,
        timing: Timing | None = None,
    ) -> Options:
        """Searches a request's front.

        Args:
            profile: tables of this pair of models.
            signals: signals of the request.
            sigmas: the denoiser's grid.
            solver: see `ComputePlan`.
            temperature: see `ComputePlan`.
            timing: this machine's seconds, for predictions; needed for a deadline.
        """
        cluster = profile.cluster(signals.descriptor)
        # In double precision: a score that equals an edge must fall into the same bin on every device.
        score_bins = torch.bucketize(signals.scores.cpu().double(), torch.tensor(profile.score_edges).double())
        signal_bins = torch.bucketize(signals.region.cpu().double(), torch.tensor(profile.signal_edges).double())
        shape = (len(profile.score_edges) + 1, len(profile.signal_edges) + 1)
        num_views, num_bins = len(score_bins), shape[0] * shape[1]
        flat = torch.arange(num_views).view(-1, 1, 1) * num_bins + score_bins * shape[1] + signal_bins
        counts = torch.bincount(flat.flatten(), minlength=num_views * num_bins).view(num_views, *shape).numpy()
        num_steps = len(sigmas) - 1
        starts = tuple(round(start * num_steps / profile.num_steps) for start in profile.starts)
        tables, levers, costs = profile.clusters[cluster], profile.levers, profile.costs
        opened, called = profile.signal != UNCERTAINTY, profile.signal == CHANGE
        found = ways(counts, tables, levers, starts, sigmas, costs, opened=opened, called=called)
        # Full diffusion has quality 1 by definition, so there is nothing to correct.
        corrected = [way if way.levers is None else _corrected(way, profile) for way in found]
        return Options(
            profile=profile,
            front=front(corrected),
            score_bins=score_bins,
            signal_bins=signal_bins,
            sigmas=sigmas,
            solver=solver,
            temperature=temperature,
            cluster=cluster,
            timing=timing,
        )

    def choose(self, params: SamplingParams) -> tuple[int, str]:
        """Index of the best way on the front, and the reason for people.

        Raises:
            InputError: a strict deadline that cannot be met.
        """
        floor = self._reaching(params.min_quality) if params.min_quality else 0
        if params.deadline_s is None:
            return max(floor, self._nearest(params.quality or 0.0)), f"quality {params.quality:g}"
        top = len(self.front) - 1 if params.quality is None else max(floor, self._nearest(params.quality))
        best = self._best_within(top, params.deadline_s)
        wanted = f"{params.deadline_s:.2f} s" + ("" if params.quality is None else f" and quality {params.quality:g}")
        # At least one step above the render, unless the render is what was wanted: else the reason below is given.
        if best is not None and best >= max(floor, min(top, 1)):
            return best, wanted
        if params.strict:
            found = self._shortfall(params.deadline_s, params.min_quality, floor)
            raise InputError("deadline_s", found, "allow more time, lower the quality, or leave strict out")
        if floor == 0:
            return 0, f"{wanted}: too short for any refinement, the render stands"
        return floor, f"{wanted}: too short for the floor of quality {params.min_quality:g}, which holds"

    def plan(self, index: int, params: SamplingParams, why: str) -> ComputePlan:
        """The plan of a way, with its predicted quality, compute and seconds.

        Args:
            index: which way of the front.
            params: the request; its quality is noted in the plan.
            why: the reason that `choose` gave.
        """
        way = self.front[index]
        plan = self._bare(way)
        seconds = None if self.timing is None else self.timing(plan)
        full = self.profile.costs.full(len(self.sigmas) - 1)
        predicted = Prediction(
            quality=min(1.0, way.quality),
            compute=way.compute / full,
            seconds=None if seconds is None else seconds.median,
            seconds_p95=None if seconds is None else seconds.p95,
        )
        wanted = plan.quality if params.quality is None else float(params.quality)
        return replace(plan, quality=wanted, predicted=predicted, reason=f"{why}: {self._words(way, plan, predicted)}")

    def _bare(self, way: Way) -> ComputePlan:
        num_steps = len(self.sigmas) - 1
        starts = tuple(round(start * num_steps / self.profile.num_steps) for start in self.profile.starts)
        cells = start_map(way, self.score_bins, self.signal_bins, starts)
        plan = ComputePlan(
            start_step=cells,
            sigmas=self.sigmas,
            solver=self.solver,
            temperature=self.temperature,
            dense_steps=tuple(range(int(cells.min()), num_steps)),
            profile=self.profile.name,
            quality=max(0.0, min(1.0, way.quality)),
        )
        return economised(plan, NO_SAVINGS if way.levers is None else self.profile.levers[way.levers])

    def _nearest(self, quality: float) -> int:
        """The way nearest to a quality plus `MARGIN` that does not miss the quality by more than `ROUNDING`."""
        aim = quality + MARGIN * (1 - quality)
        above = self._reaching(aim)
        below = max(0, above - 1)
        missing, excess = aim - self.front[below].quality, self.front[above].quality - aim
        return below if missing <= min(excess, (MARGIN + ROUNDING) * (1 - quality)) else above

    def _reaching(self, quality: float) -> int:
        """The cheapest way of this quality; full diffusion is always one."""
        return next(i for i, way in enumerate(self.front) if way.quality >= quality)

    def _best_within(self, top: int, limit_s: float) -> int | None:
        """The best way up to `top` that fits; None where not even the first does.

        Bisection needs few predictions, and the same ones first whatever the deadline: so a later deadline never ends
        at a lower way, even where a way on the front is predicted to be slower than a better one.
        """
        low, high = -1, len(self.front)
        while high - low > 1:
            middle = (low + high) // 2
            if self._fits(middle, limit_s):
                low = middle
            else:
                high = middle
        if low < top:
            return low if low >= 0 else None
        return next((i for i in range(top, -1, -1) if self._fits(i, limit_s)), None)

    def _fits(self, index: int, limit_s: float) -> bool:
        return self._p95(index) <= limit_s

    def _p95(self, index: int) -> float:
        """95th percentile of a way's seconds; 0 for the render alone."""
        way = self.front[index]
        if not way.refines:
            return 0.0
        if self.timing is None:
            raise ValueError("a deadline needs this machine's timing")
        return self.timing(self._bare(way)).p95

    def _shortfall(self, left_s: float, min_quality: float, floor: int) -> str:
        promised = f"quality {min_quality:g}" if floor else "the render alone"
        return f"{left_s:.2f} s are left, {promised} needs {self._p95(floor):.2f} s"

    def _words(self, way: Way, plan: ComputePlan, predicted: Prediction) -> str:
        if not way.refines:
            return f"the render is kept, predicted quality {predicted.quality:.3f}"
        ever = float((plan.start_step < plan.num_steps).double().mean())
        calls = plan.num_steps - plan.first_step
        by = f"in {calls} calls, {len(set(plan.dense_steps))} of them dense" if plan.network else "without a call"
        return (
            f"{ever:.0%} of cells {by}, {predicted.compute:.1%} of full diffusion's compute, "
            f"predicted quality {predicted.quality:.3f} ({self.profile.name}, cluster {self.cluster})"
        )


def _corrected(way: Way, profile: FittedProfile) -> Way:
    """The way with its predicted quality corrected by the profile, see `FittedProfile.corrected`."""
    return replace(way, quality=1 - profile.corrected(1 - way.quality, active=way.active))
