"""Streams of events for any number of listeners: stored events first, then new ones.

The store is the only source. A listener reads the events after its position, waits until some were added, and reads
again; a spurious wake-up costs one read. So no event is lost between the stored and the new ones, none is sent twice,
and a listener that disconnects leaves only its entry here, which is removed with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from sphinx_nvs.engine.types.jobs import Event, EventKind

FINAL_EVENTS = frozenset({EventKind.COMPLETED, EventKind.FAILED, EventKind.CANCELLED, EventKind.EXPIRED})
"""Nothing comes after one of these."""

PAGE = 256
"""Most events that are read at once."""

Read = Callable[[str, int, int], Awaitable[Sequence[Event]]]
"""A job's events after a number, up to a limit."""

IsOver = Callable[[str], Awaitable[bool]]
"""Whether no event can follow: the job is final, or deleted."""


class EventStreams:
    """Wakes listeners when something was added to their job's events."""

    def __init__(self, read: Read, is_over: IsOver) -> None:
        self._read, self._is_over = read, is_over
        self._bells: dict[str, set[asyncio.Event]] = {}
        self._closed = False

    @property
    def num_listeners(self) -> int:
        """Streams that are open."""
        return sum(len(bells) for bells in self._bells.values())

    def wake(self, job_id: str) -> None:
        """Has a job's listeners read again; must be called on the loop's thread."""
        for bell in self._bells.get(job_id, ()):
            bell.set()

    def close(self) -> None:
        """Ends every stream after what is stored."""
        self._closed = True
        for job_id in self._bells:
            self.wake(job_id)

    async def listen(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """A job's events, in order, until its final one.

        Args:
            job_id: the job.
            after: number of the last event that the listener has; 0 for all.
        """
        bell = asyncio.Event()
        self._bells.setdefault(job_id, set()).add(bell)
        is_over = False
        try:
            while True:
                # Cleared before reading: an event that is added while the page is read rings again, and is read in the
                # next round.
                bell.clear()
                page = await self._read(job_id, after, PAGE)
                for event in page:
                    after = event.seq
                    yield event
                    if event.kind in FINAL_EVENTS:
                        return
                # More may be stored; waiting for the bell would leave them until the next event.
                if len(page) == PAGE:
                    continue
                if not page:
                    if is_over or self._closed:
                        return
                    # Events are read again after this, since a job's end is stored together with its event.
                    is_over = await self._is_over(job_id)
                if not is_over and not self._closed:
                    await bell.wait()
        finally:
            self._forget(job_id, bell)

    def _forget(self, job_id: str, bell: asyncio.Event) -> None:
        bells = self._bells[job_id]
        bells.discard(bell)
        if not bells:
            del self._bells[job_id]
