"""Progress of posing, and its end before time.

The share of a stage in the whole is known beforehand only roughly; the time left follows from it and the time spent.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Report = Callable[[str, float, float], None]
"""Receives the present activity, the share of all work that is done, and seconds left (NaN if unknown)."""

_LEAST_SHARE = 0.05


class PosingCancelledError(Exception):
    """The caller stopped the work; finished stages are kept."""


@dataclass
class Progress:
    """Where the work is; `step` raises `PosingCancelledError` once the caller wants it to end.

    The share never falls, although a stage may be done again in another way.
    """

    report: Report | None = None
    cancelled: Callable[[], bool] | None = None
    started: float = field(default_factory=time.monotonic)
    share: float = 0.0

    def step(self, what: str, share: float) -> None:
        """Reports a share of all work, from 0 to 1."""
        if self.cancelled is not None and self.cancelled():
            raise PosingCancelledError
        if self.report is None:
            return
        share = self.share = max(share, self.share)
        spent = time.monotonic() - self.started
        left = spent * (1 - share) / share if share >= _LEAST_SHARE else math.nan
        self.report(what, share, left)

    def within(self, what: str, first: float, last: float) -> Callable[[int, int], None]:
        """A callback of steps done and to do for a stage between two shares."""
        return lambda done, total: self.step(what, first + (last - first) * done / max(1, total))
