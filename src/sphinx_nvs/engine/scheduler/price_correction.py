r"""Prices that learn, and a request's ladder of qualities.

    corrected seconds = c * table seconds,   c = clamp(median{r_1 .. r_n, 1, 1, 1, 1}),  r = measured / predicted

The median of the last n <= 31 ratios moves only when about half of them have moved, so one slow measurement changes
little; the four ones stand for the table while there is little evidence. Nothing older than the window counts,
so whatever c was, n ordinary measurements restore it.

A ladder is the part of a price table between floor and requested quality. Levels 0 .. LEVELS - 1 run over every ladder
alike: level 0 is the floor, the last level the requested quality, so that one number lowers all jobs alike.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from sphinx_nvs.engine.types.prices import PriceTable, Rung

LEVELS = 9
"""Number of levels of quality."""

TOP = LEVELS - 1
"""The level at which all jobs get the requested quality."""

WINDOW = 31
"""Measurements that count."""

PRIOR = (1.0,) * 4
"""The table's own vote."""

CLAMP = (0.25, 4.0)
"""Corrections that are believed."""


class Correction:
    """Measured over predicted, robustly."""

    def __init__(self) -> None:
        self._ratios: deque[float] = deque(maxlen=WINDOW)
        self.factor = 1.0

    def learn(self, predicted_s: float, measured_s: float) -> None:
        """Adds a measurement; one without a prediction is ignored."""
        if predicted_s > 0 and measured_s > 0:
            self._ratios.append(measured_s / predicted_s)
            low, high = CLAMP
            # A median and not a mean: one step that waited for a garbage collection or another process is no evidence.
            self.factor = min(max(median((*self._ratios, *PRIOR)), low), high)

    def spread(self, share: float, default: float) -> float:
        """This quantile of the ratios over their median; `default` while there are too few."""
        # With fewer, the 95th percentile of the ratios would be their largest.
        if len(self._ratios) < 20:
            return default
        ranked = sorted(self._ratios)
        return max(1.0, ranked[min(len(ranked) - 1, int(share * len(ranked)))] / self.factor)


@dataclass(frozen=True)
class Ladder:
    """The qualities that a request may be given, ascending.

    Args:
        rungs: at least one; the first is the floor, the last the requested quality.
    """

    rungs: tuple[Rung, ...]

    @staticmethod
    def of(prices: PriceTable, min_quality: float | int, asked: float | int) -> Ladder:
        """The rungs from the floor to the requested quality; both ends cost as much as the next rung of the table."""
        floor = _at(prices, min_quality) if min_quality > prices.rungs[0].quality else prices.rungs[0]
        top = _at(prices, max(min_quality, asked))
        inner = tuple(rung for rung in prices.rungs if floor.quality < rung.quality < top.quality)
        return Ladder((floor, *inner, top) if top.quality > floor.quality else (floor,))

    @property
    def floor(self) -> Rung:
        """The least."""
        return self.rungs[0]

    @property
    def top(self) -> Rung:
        """The requested quality."""
        return self.rungs[-1]

    @cached_property
    def seconds_by_level(self) -> tuple[float, ...]:
        """Median seconds at each level."""
        return tuple(self.rungs[self.place(level)].seconds for level in range(LEVELS))

    @cached_property
    def seconds_p95_by_level(self) -> tuple[float, ...]:
        """95th percentile at each level."""
        return tuple(self.rungs[self.place(level)].seconds_p95 for level in range(LEVELS))

    def place(self, level: int) -> int:
        """Index of a level's rung."""
        # Rounded down: a level between two rungs gets the cheaper one, so levels never cost more than was counted.
        return (level * (len(self.rungs) - 1)) // TOP

    def within(self, seconds: float | int) -> int | None:
        """Index of the best rung whose 95th percentile is at most so long; None if not even the floor's is."""
        fitting = bisect_right(self._seconds_p95, seconds)
        return fitting - 1 if fitting else None

    @cached_property
    def _seconds_p95(self) -> list[float]:
        return [rung.seconds_p95 for rung in self.rungs]


def _at(prices: PriceTable, quality: float | int) -> Rung:
    """A rung of exactly this quality at the price of the table's next one, or of its last if none reaches it."""
    rung = prices.at_least(quality)
    return Rung(
        quality=float(quality),
        seconds=rung.seconds,
        seconds_p95=rung.seconds_p95,
        active_share=rung.active_share,
    )
