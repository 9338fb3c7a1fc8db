"""Limits on callers: a token bucket for the rate of requests, and quotas on what is stored.

tokens(t) = min(burst, tokens(t0) + rate (t - t0));  a request takes one, or waits (1 - tokens) / rate seconds
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

from sphinx_nvs.engine.store.row_types import Usage
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.server_config import KeyLimits, UploadLimits

MAX_CALLERS = 10_000
"""Number of buckets; a caller whose bucket was dropped starts again with a full one."""


class RateLimiter:
    """A token bucket for each caller.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, limits: KeyLimits) -> None:
        """Takes a token for a request.

        Raises:
            ProblemError: 429 if there is none, with the time until there is.
        """
        now = self._clock()
        tokens, then = self._tokens.pop(caller, (float(limits.burst), now))
        tokens = min(float(limits.burst), tokens + limits.rate_per_s * (now - then))
        # A refused request takes nothing: a client that keeps trying is served as soon as a token is there.
        self._tokens[caller] = (max(0.0, tokens - 1), now) if tokens >= 1 else (tokens, now)
        while len(self._tokens) > MAX_CALLERS:
            # The least recently seen: `take` puts a caller at the end. So addresses that are made up cannot fill the
            # memory.
            self._tokens.popitem(last=False)
        if tokens < 1:
            wait_s = (1 - tokens) / limits.rate_per_s
            detail = f"The limit of {limits.rate_per_s:g} requests per second is exceeded; send fewer."
            raise ProblemError(429, detail, headers=retry_after(wait_s))


class Streams:
    """Counts open streams by caller.

    Args:
        kind: what they are, for the sentence, in the plural.
    """

    def __init__(self, kind: str = "event streams") -> None:
        self._kind = kind
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    @contextmanager
    def counted(self, caller: str, limit: int) -> Iterator[None]:
        """Counts a stream while it is open.

        Args:
            caller: name of the caller.
            limit: how many it may have open.

        Raises:
            ProblemError: 429 if the caller is at its limit.
        """
        if self._open[caller] >= limit:
            detail = f"{limit} {self._kind} are open, which is the limit; close one."
            raise ProblemError(429, detail, headers=retry_after(5))
        with _added(self._open, caller, 1):
            yield


class LargeBodies:
    """Counts large request bodies that are on their way, which take memory before they are understood."""

    LARGE_BYTES = 1 << 16
    """Smaller bodies are not counted."""

    PER_CALLER, TOTAL = 4, 32
    """Most large bodies at a time."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def counted(self, caller: str, length: str | None) -> Iterator[None]:
        """Counts a body until its request is answered.

        Args:
            caller: name of the caller.
            length: the header Content-Length; None if the body's length is not declared, which counts as large.

        Raises:
            ProblemError: 429 if too many are on their way.
        """
        if length is not None and length.isdecimal() and len(length) < 16 and int(length) <= self.LARGE_BYTES:
            yield
            return
        if self._open[caller] >= self.PER_CALLER or self._open.total() >= self.TOTAL:
            detail = f"{self._open.total()} large request bodies are on their way; send few at a time."
            raise ProblemError(429, detail, headers=retry_after(1))
        with _added(self._open, caller, 1):
            yield


class Uploads:
    """Counts uploads on their way, which take room before their scenes exist.

    Args:
        limits: limits on all uploads together.
    """

    def __init__(self, limits: UploadLimits) -> None:
        self._limits = limits
        self._scenes: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    @contextmanager
    def counted(self, key_id: str, size: int, usage: Usage, limits: KeyLimits) -> Iterator[UploadBudget]:
        """Counts an upload while it is on its way.

        Args:
            key_id: the owner.
            size: bytes of the body, or the largest size that it may have.
            usage: what the owner stores already.
            limits: the owner's limits.

        Yields:
            What the upload holds; unpacked bytes are added to it.

        Raises:
            ProblemError: 429 if the owner is at its limit, or will be once its uploads are stored; 503 if all uploads
                together are at theirs.
        """
        check_storage(usage, limits)
        # Uploads in progress count with the largest size that they may have, since their scenes do not exist yet.
        scenes = usage.stored_scenes + self._scenes[key_id]
        own_most = max(1, self._limits.at_once // 4)
        is_full = scenes >= limits.stored_scenes or usage.stored_bytes + self._bytes[key_id] >= limits.stored_bytes
        if is_full or self._scenes[key_id] >= own_most:
            detail = f"Your {self._scenes[key_id]} uploads in progress fill your quota; wait until one ends."
            raise ProblemError(429, detail, headers=retry_after(5))
        if self._scenes.total() >= self._limits.at_once:
            raise ProblemError(503, "Too many uploads are on their way; retry later.", headers=retry_after(5))
        budget = UploadBudget(self, key_id)
        try:
            budget.add(size)
            with _added(self._scenes, key_id, 1):
                yield budget
        finally:
            budget.release()

    def hold(self, key_id: str, size: int) -> None:
        """Counts more bytes; see `UploadBudget.add`."""
        if self._bytes[key_id] + size > self._limits.held_bytes // 2:
            detail = f"Your uploads in progress hold {self._bytes[key_id]} bytes and need {size} more; wait for one."
            raise ProblemError(429, detail, headers=retry_after(5))
        if self._bytes.total() + size > self._limits.held_bytes:
            raise ProblemError(503, "The uploads on their way fill the server; retry later.", headers=retry_after(5))
        self._bytes[key_id] += size

    def give_back(self, key_id: str, size: int) -> None:
        """Counts bytes no more."""
        self._bytes[key_id] -= size
        if not self._bytes[key_id]:
            del self._bytes[key_id]


class UploadBudget:
    """What one upload holds, in memory and on disk. Used by the event loop and by one thread after another."""

    def __init__(self, uploads: Uploads, key_id: str) -> None:
        self._uploads, self._key_id, self._held = uploads, key_id, 0

    def add(self, size: int) -> None:
        """Counts more bytes, before they are taken.

        Raises:
            ProblemError: 429 or 503 if there is no room for them.
        """
        self._uploads.hold(self._key_id, size)
        self._held += size

    def release(self) -> None:
        """Counts nothing any more."""
        if self._held:
            self._uploads.give_back(self._key_id, self._held)
        self._held = 0


@contextmanager
def _added(counter: Counter[str], name: str, amount: int) -> Iterator[None]:
    """Adds to a count inside the block; drops counts of 0."""
    counter[name] += amount
    try:
        yield
    finally:
        counter[name] -= amount
        if not counter[name]:
            del counter[name]


def limits_of(given: JSONObject, default: KeyLimits) -> KeyLimits:
    """Returns a key's own limits where they are valid, the default ones elsewhere."""
    known = {field.name: type(getattr(default, field.name)) for field in fields(default)}
    own = {
        name: known[name](value)
        for name, value in given.items()
        if name in known and isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    }
    return replace(default, **own)


def check_storage(usage: Usage, limits: KeyLimits, *, more_bytes: int = 0) -> None:
    """Raises ProblemError, 429, if a caller's storage is full, or would be with `more_bytes` more."""
    if usage.stored_bytes + max(1, more_bytes) > limits.stored_bytes:
        more = f", and this needs {more_bytes} more" if more_bytes else ""
        found = f"You store {usage.stored_bytes} of at most {limits.stored_bytes} bytes{more}"
        raise ProblemError(429, f"{found}; delete scenes, or wait until jobs expire.", headers=retry_after(3600))
    if usage.stored_scenes >= limits.stored_scenes:
        found = f"You store {usage.stored_scenes} of at most {limits.stored_scenes} scenes"
        raise ProblemError(429, f"{found}; delete some.", headers=retry_after(3600))


def check_running(usage: Usage, limits: KeyLimits) -> None:
    """Raises ProblemError, 429, if a caller has as many unfinished jobs as it may."""
    if usage.running_jobs >= limits.running_jobs:
        detail = f"You have {usage.running_jobs} unfinished jobs of at most {limits.running_jobs}; wait for one to end."
        raise ProblemError(429, detail, headers=retry_after(5))
