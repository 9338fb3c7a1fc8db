"""From a request's signals and a wish to a plan, by a fitted profile: quality, deadline, or both.

    quality      the way on the front whose quality is nearest, a little above, see `MARGIN` and `ROUNDING`
    within_s     the best way whose 95th percentile of seconds fits
    both         the first, unless it does not fit; then the second

Along the front quality and compute ascend together, so a higher quality never lowers compute and a later deadline never
lowers quality. A floor, `min_quality`, holds against any deadline: work that was promised better is late, not worse.

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
from sphinx_nvs.plan.profile import CHANGE, FittedProfile
from sphinx_nvs.plan.search import Way, front, start_map, ways

MARGIN = 0.04
"""Share of the loss allowed that is kept back: who gets less than was asked minds more than who gets more."""

ROUNDING = 0.2
"""Most of the loss allowed, as a share, by which a way may miss a quality. Ways are few: were each rounded up, more
than is asked would be delivered on average, and paid for."""

Timing = Callable[[ComputePlan], Seconds]
"""What stages 5 to 7 of a plan take on this machine."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of a plan.

    Args:
        quality: to reach, 0..1; None leaves it to the deadline.
        within_s: seconds that refinement may take; None is no limit.
        min_quality: floor under the deadline, and under what rounding does to `quality`, 0..1.
        strict: whether a wish that cannot be met is an error instead of the nearest plan.

    Raises:
        InputError: a number is out of range, or nothing is asked for.
    """

    quality: float | None = 0.95
    within_s: float | None = None
    min_quality: float = 0.0
    strict: bool = False

    def __post_init__(self) -> None:
        for name in ("quality", "min_quality"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(name, f"it is {value:g}", "give a number in 0..1, e.g. 0.95")
        if self.quality is None and self.within_s is None:
            raise InputError("quality", "neither a quality nor a deadline is given", "give one of them, e.g. 0.95")
        if self.quality is not None and self.min_quality > self.quality:
            found = f"it is {self.min_quality:g}, above the quality of {self.quality:g} that is asked for"
            raise InputError("min_quality", found, "give one that is not above it")


@dataclass(frozen=True, kw_only=True, eq=False)
class Signals:
    """What a fitted profile looks at.

    Args:
        region: the profile's region signal per cell.
        scores: the profile's score per cell.
        descriptor: of the scene.
    """

    region: Float[Tensor, "V h w"]
    scores: Float[Tensor, "V h w"]
    descriptor: Float[Tensor, "D"]


def plan_fitted(
    profile: FittedProfile,
    signals: Signals,
    sigmas: Float[Tensor, "L"],
    wish: Wish,
    *,
    solver: str,
    temperature: float,
    timing: Timing | None = None,
) -> ComputePlan:
    """Plans the denoising of every target view.

    Args:
        profile: of this pair of models.
        signals: of the request.
        sigmas: the denoiser's grid.
        wish: what is asked for.
        solver: see `ComputePlan`.
        temperature: see `ComputePlan`.
        timing: this machine's, for deadlines and predictions; needed for a deadline.

    Raises:
        InputError: a wish that cannot be met, where it is strict.
        ValueError: a deadline without `timing`.
    """
    options = Options.of(profile, signals, sigmas, solver=solver, temperature=temperature, timing=timing)
    index, why = options.choose(wish)
    return options.plan(index, wish, why)


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """The front of a request, and how to make plans of it."""

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
        """Looks at a request; see `plan_fitted`."""
        cluster = profile.cluster(signals.descriptor)
        score_bins = torch.bucketize(signals.scores.cpu().double(), torch.tensor(profile.score_edges).double())
        signal_bins = torch.bucketize(signals.region.cpu().double(), torch.tensor(profile.signal_edges).double())
        shape = (len(profile.score_edges) + 1, len(profile.signal_edges) + 1)
        flat = (score_bins * shape[1] + signal_bins).flatten()
        counts = torch.bincount(flat, minlength=shape[0] * shape[1]).view(shape).numpy()
        num_steps = len(sigmas) - 1
        starts = tuple(round(start * num_steps / profile.num_steps) for start in profile.starts)
        looked = profile.signal == CHANGE
        found = ways(counts, profile.clusters[cluster], profile.levers, starts, sigmas, profile.costs, looked=looked)
        corrected = [way if way.levers is None else _by_experience(way, profile) for way in found]
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

    def choose(self, wish: Wish) -> tuple[int, str]:
        """Which way of the front, and why."""
        floor = self._reaching(wish.min_quality) if wish.min_quality else 0
        if wish.within_s is None:
            return max(floor, self._nearest(wish.quality or 0.0)), f"quality {wish.quality:g}"
        top = len(self.front) - 1 if wish.quality is None else max(floor, self._nearest(wish.quality))
        best = self._best_within(top, wish.within_s)
        asked = f"{max(0.0, wish.within_s):.2f} s" + ("" if wish.quality is None else f" and quality {wish.quality:g}")
        if best is not None and best >= max(floor, min(top, 1)):
            return best, asked
        if wish.strict:
            raise InputError("deadline", self._shortfall(wish, floor), "allow more time, less quality, or a late end")
        if floor == 0:
            return 0, f"{asked}: too short for any refinement, the render stands"
        return floor, f"{asked}: too short for the floor of quality {wish.min_quality:g}, which holds"

    def plan(self, index: int, wish: Wish, why: str) -> ComputePlan:
        """The plan of a way, with what it is predicted to be."""
        way = self.front[index]
        plan = self._bare(way)
        seconds = None if self.timing is None else self.timing(plan)
        full = self.profile.costs.fixed + len(self.sigmas) - 1
        predicted = Prediction(
            quality=min(1.0, way.quality),
            compute=way.compute / full,
            seconds=None if seconds is None else seconds.median,
            seconds_p95=None if seconds is None else seconds.p95,
        )
        asked = plan.quality if wish.quality is None else float(wish.quality)
        return replace(plan, quality=asked, predicted=predicted, reason=f"{why}: {self._words(way, plan, predicted)}")

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
        """The way that is nearest to a quality and its `MARGIN`, but none that misses it by more than `ROUNDING`."""
        aim = quality + MARGIN * (1 - quality)
        above = self._reaching(aim)
        below = max(0, above - 1)
        missing, excess = aim - self.front[below].quality, self.front[above].quality - aim
        return below if missing <= min(excess, (MARGIN + ROUNDING) * (1 - quality)) else above

    def _reaching(self, quality: float) -> int:
        """The cheapest way of this quality; full diffusion is always one."""
        return next(i for i, way in enumerate(self.front) if way.quality >= quality)

    def _best_within(self, top: int, within_s: float) -> int | None:
        """The best way up to `top` that fits; None where not even the first does.

        Halving asks for few predictions, and always for the same ones first: so a later deadline never ends at a lesser
        way, even where a way on the front is predicted to be slower than its betters.
        """
        low, high = -1, len(self.front)
        while high - low > 1:
            middle = (low + high) // 2
            if self._fits(middle, within_s):
                low = middle
            else:
                high = middle
        if low < top:
            return low if low >= 0 else None
        return next((i for i in range(top, -1, -1) if self._fits(i, within_s)), None)

    def _fits(self, index: int, within_s: float) -> bool:
        way = self.front[index]
        if not way.refines:
            return within_s >= 0
        if self.timing is None:
            raise ValueError("a deadline needs to know this machine's seconds")
        return self.timing(self._bare(way)).p95 <= within_s

    def _shortfall(self, wish: Wish, floor: int) -> str:
        way = self.front[floor]
        needs = 0.0 if not way.refines or self.timing is None else self.timing(self._bare(way)).p95
        promised = f"quality {wish.min_quality:g}" if floor else "the render alone"
        return f"{wish.within_s:.2f} s are left, {promised} needs {needs:.2f} s"

    def _words(self, way: Way, plan: ComputePlan, predicted: Prediction) -> str:
        if not way.refines:
            return f"the render is kept, predicted quality {predicted.quality:.3f}"
        ever = float((plan.start_step < plan.num_steps).double().mean())
        calls = plan.num_steps - plan.first_step
        return (
            f"{ever:.0%} of cells in {calls} calls, {len(set(plan.dense_steps))} of them dense, "
            f"{predicted.compute:.1%} of full diffusion's compute, predicted quality {predicted.quality:.3f} "
            f"({self.profile.name}, cluster {self.cluster})"
        )


def _by_experience(way: Way, profile: FittedProfile) -> Way:
    """A way with the quality that the profile's correction gives it."""
    return replace(way, quality=1 - profile.corrected(1 - way.quality, partly=way.holds and way.refines))
