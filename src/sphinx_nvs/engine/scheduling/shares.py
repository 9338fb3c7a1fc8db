r"""Fair shares: a class of work that gets at least its part of a device's time, and keys that are served alike.

A claim counts, while its class waits, what it is owed:

    owed += share * s   for s seconds spent on anybody,     owed -= s   for s seconds spent on the class itself

and gives the class its turn once that exceeds `turn_s`. Over any stretch of time T in which the class waits it has
got at least share * T - turn_s - (one command). Nothing is owed to a class that does not wait.

Keys: the seconds that each was served, a newcomer beginning where the least served of the present ones is, so that
nobody saves up credit by staying away, and nobody is starved by somebody new.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Claim:
    """What one class of work is owed on one device.

    Args:
        share: of the device's time while it waits, 0..1.
        turn_s: seconds it must be owed before its turn comes.
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
        self.owed_s = max(-self.turn_s, self.owed_s + self.share * seconds - (seconds if on_class else 0.0))


@dataclass
class Served:
    """Device seconds that each API key has got, among the keys that have jobs."""

    seconds: dict[str, float] = field(default_factory=dict)

    def enter(self, key: str) -> None:
        """A key has a job; a new one begins where the least served is."""
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
