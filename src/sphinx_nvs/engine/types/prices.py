"""What a request costs at each quality: the table that quotes and the scheduler read. Values only.

A table is a Pareto front: quality and seconds both ascend. The first rung is regression alone, the last full diffusion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One way to carry out a request.

    Args:
        quality: predicted, 0..1.
        seconds: median seconds of device time after the regression, alone on the device.
        seconds_p95: 95th percentile of it.
        active_share: share of full diffusion's compute, decoding included, 0..1.
    """

    quality: float
    seconds: float
    seconds_p95: float
    active_share: float


@dataclass(frozen=True, kw_only=True)
class PriceTable:
    """Prices of one request shape on one kind of device.

    Args:
        regression_s: median seconds of reconstruction and rendering.
        regression_p95_s: 95th percentile of it.
        rungs: ascending in quality and in seconds, at least one.
        memory_bytes: memory that its largest unit takes at least.
        memory_limit: memory of the device, bytes.
    """

    regression_s: float
    regression_p95_s: float
    rungs: tuple[Rung, ...]
    memory_bytes: float = 0.0
    memory_limit: float = math.inf

    def at_least(self, quality: float | int) -> Rung:
        """The cheapest rung of this quality; the best one if none reaches it."""
        return next((rung for rung in self.rungs if rung.quality >= quality), self.rungs[-1])

    def within(self, seconds: float | int, *, p95: bool = True) -> Rung:
        """The best rung that takes at most so long; the cheapest one if none does."""
        fitting = [r for r in self.rungs if (r.seconds_p95 if p95 else r.seconds) <= seconds]
        return fitting[-1] if fitting else self.rungs[0]


@runtime_checkable
class Pricing(Protocol):
    """Prices request shapes before anything of them was computed."""

    def table(self, *, contexts: int, views: int, height: int, width: int) -> PriceTable:
        """Prices of `views` target frames of `height` x `width` pixels from `contexts` photos."""
        ...
