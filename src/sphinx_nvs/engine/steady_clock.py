"""A clock for everything that waits: epoch seconds at its start, and from then on no step of the system's clock."""

from __future__ import annotations

import time
from collections.abc import Callable


def steady_clock() -> Callable[[], float]:
    """Returns a clock that agrees with `time.time` now, and then advances as `time.monotonic` does.

    A system's clock is set back and forward by its administrators and by time servers. A retry that is due in a second
    must not wait for an hour then, nor a deadline be missed by one.
    """
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def lag_of(clock: Callable[[], float]) -> float:
    """Returns how far the system's clock, which dates files, is ahead of a clock, in seconds."""
    return time.time() - clock()
