r"""Fair shares: a class of work that gets at least its part of a device's time, and keys that are served alike.

A claim counts, while its class waits, the seconds that it is due:

    due += share * s   for s seconds spent on any class,     due -= s   for s seconds spent on the class itself

and gives the class its turn once that exceeds `turn_s`. Over any stretch of time T in which the class waits it has
got at least share * T - turn_s - (one command). Nothing is due to a class that does not wait.

Expected load: recent arrivals, weighted with a time constant tau, assumed to continue and to decay alike:

    rate = (1 / tau) sum_i w_i exp(-(now - t_i) / tau),    expected(h) = rate tau (1 - exp(-h / tau))

Keys: the seconds that each was served; a new key starts at the least served of the present ones, so that
no key saves up credit by staying away, and none is starved by a new one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64


@dataclass(kw_only=True)
class Claim:
    """The claim of one class of work on one device.

    Args:
        share: share of the device's time while it waits, 0..1.
        turn_s: seconds that must be due to it before its turn comes.
        owed_s: at present.
    """

    share: float
    turn_s: float
    owed_s: float = 0.0

    @property
    def is_turn(self) -> bool:
        """Whether the class comes first now."""
        return self.owed_s > self.turn_s

    def spend(self, seconds: float, *, on_class: bool, waits: bool) -> None:
        """Counts time of the device."""
        if not waits:
            self.owed_s = 0.0
            return
        # Bounded below, so that a class that was served much while nothing else waited is not made to pay for it later.
        self.owed_s = max(-self.turn_s, self.owed_s + self.share * seconds - (seconds if on_class else 0.0))


@dataclass
class Served:
    """Device seconds that each API key has got, among the keys that have jobs."""

    seconds: dict[str, float] = field(default_factory=dict)

    def enter(self, key: str) -> None:
        """A key has a job; a new one starts where the least served is."""
        if key not in self.seconds:
            self.seconds[key] = min(self.seconds.values(), default=0.0)

    def leave(self, key: str) -> None:
        """A key has no job any more."""
        self.seconds.pop(key, None)

    def add(self, key: str, seconds: float) -> None:
        """Counts time of a device."""
        if key in self.seconds:
            self.seconds[key] += seconds

    def of(self, key: str) -> float:
        """Seconds that a key has got."""
        return self.seconds.get(key, 0.0)


@dataclass
class ArrivalRate:
    """Device seconds of work that arrive, lately.

    Args:
        tau_s: time constant of forgetting.
    """

    tau_s: float
    _sum: float = 0.0
    _at: float = 0.0

    def add(self, now: float, seconds: float) -> None:
        """Some work has arrived."""
        # The exponential average needs no list of arrivals: the sum decays to the present, then the new work is added.
        self._sum, self._at = self._now(now) + seconds, max(now, self._at)

    def withdraw(self, then: float, seconds: float) -> None:
        """Reverts `add(then, seconds)`."""
        # Its share of the sum has decayed since, by the same factor.
        self._sum = max(0.0, self._sum - seconds * math.exp(-max(0.0, self._at - then) / self.tau_s))

    def expected(self, now: float, horizon_s: Float64[np.ndarray, " J"]) -> Float64[np.ndarray, " J"]:
        """Seconds of work that will have arrived after so long, each."""
        return self._now(now) * (1 - np.exp(-np.maximum(horizon_s, 0.0) / self.tau_s))

    def _now(self, now: float) -> float:
        """The average over the remembered time."""
        return self._sum * math.exp(-max(0.0, now - self._at) / self.tau_s)
