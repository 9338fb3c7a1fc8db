"""How often, and how much: a bucket of tokens for each caller, and what a caller may keep.

tokens(t) = min(burst, tokens(t0) + rate (t - t0));  a request takes one, or waits (1 - tokens) / rate seconds
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from sphinx_nvs.engine.store.row_types import Usage
from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.config import KeyLimits

MOST_CALLERS = 10_000
"""Buckets that are kept; a forgotten caller begins with a full one."""


class Buckets:
    """Requests of each caller over time.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, limits: KeyLimits) -> None:
        """Lets a request through.

        Raises:
            ProblemError: 429, with the time after which there is a token again.
        """
        now = self._clock()
        tokens, then = self._tokens.pop(caller, (float(limits.burst), now))
        tokens = min(float(limits.burst), tokens + limits.rate_per_s * (now - then))
        self._tokens[caller] = (max(0.0, tokens - 1), now) if tokens >= 1 else (tokens, now)
        while len(self._tokens) > MOST_CALLERS:
            self._tokens.popitem(last=False)
        if tokens < 1:
            wait_s = (1 - tokens) / limits.rate_per_s
            detail = f"More than {limits.rate_per_s:g} requests a second came from here; slow down."
            raise ProblemError(429, detail, headers=retry_after(wait_s))


class Streams:
    """Streams that are open, by caller."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    @contextmanager
    def counted(self, caller: str, limits: KeyLimits) -> Iterator[None]:
        """Counts a stream as long as it lasts, from the moment that it is let in.

        Raises:
            ProblemError: 429, the caller has as many as it may.
        """
        if self._open[caller] >= limits.streams:
            detail = f"{limits.streams} streams of events are open for you already; close one."
            raise ProblemError(429, detail, headers=retry_after(5))
        with _held(self._open, caller, 1):
            yield


class Uploads:
    """Scenes on their way in, by owner: they take room before they are kept."""

    def __init__(self) -> None:
        self._scenes: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    @contextmanager
    def counted(self, key_id: str, size: int, usage: Usage, limits: KeyLimits) -> Iterator[None]:
        """Counts an upload as long as it lasts.

        Args:
            key_id: whose.
            size: of its body, or the most that it can be.
            usage: what the owner keeps.
            limits: of the owner.

        Raises:
            ProblemError: 429, the owner keeps as much as it may, or will once what is on its way is there.
        """
        check_storage(usage, limits)
        scenes = usage.stored_scenes + self._scenes[key_id]
        if scenes >= limits.stored_scenes or usage.stored_bytes + self._bytes[key_id] >= limits.stored_bytes:
            detail = f"Your uploads on their way ({self._scenes[key_id]}) fill what you may keep; wait for one to end."
            raise ProblemError(429, detail, headers=retry_after(5))
        with _held(self._scenes, key_id, 1), _held(self._bytes, key_id, size):
            yield


@contextmanager
def _held(counter: Counter[str], name: str, amount: int) -> Iterator[None]:
    """Adds to a count for a while; what is back at nothing is forgotten."""
    counter[name] += amount
    try:
        yield
    finally:
        counter[name] -= amount
        if not counter[name]:
            del counter[name]


def limits_of(given: dict[str, Any], usual: KeyLimits) -> KeyLimits:
    """A key's own limits where it has some that make sense, else the usual ones."""
    known = {field.name: type(getattr(usual, field.name)) for field in fields(usual)}
    own = {
        name: known[name](value)
        for name, value in given.items()
        if name in known and isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    }
    return replace(usual, **own)


def check_storage(usage: Usage, limits: KeyLimits, *, more_bytes: int = 0) -> None:
    """Raises ProblemError, 429, if a caller keeps as much as it may, or would with so many bytes more."""
    if usage.stored_bytes + max(1, more_bytes) > limits.stored_bytes:
        more = f", and this takes {more_bytes}" if more_bytes else ""
        found = f"You keep {usage.stored_bytes} bytes of at most {limits.stored_bytes}{more}"
        raise ProblemError(429, f"{found}; delete scenes, or wait until views expire.", headers=retry_after(3600))
    if usage.stored_scenes >= limits.stored_scenes:
        found = f"You keep {usage.stored_scenes} scenes of at most {limits.stored_scenes}"
        raise ProblemError(429, f"{found}; delete some.", headers=retry_after(3600))


def check_running(usage: Usage, limits: KeyLimits) -> None:
    """Raises ProblemError, 429, if a caller has as many unfinished jobs as it may."""
    if usage.running_jobs >= limits.running_jobs:
        detail = f"You have {usage.running_jobs} unfinished views of {limits.running_jobs}; wait for one to end."
        raise ProblemError(429, detail, headers=retry_after(5))
