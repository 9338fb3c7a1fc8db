"""Server-sent events, and streams that go on behind the last event when their connection breaks.

    field: value    lines of an event, up to an empty line          : text    a sign of life

Reference: WHATWG HTML, section 9.2 "Server-sent events".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from sphinx_nvs.client.calls import Answer, Call, Lost, id_of
from sphinx_nvs.client.problems import ApiError, UnreachableError
from sphinx_nvs.client.retrying import Retrying
from sphinx_nvs.client.values import Event, View

IDLE_S = 45.0
"""A stream without even a sign of life for so long is taken for broken; the server gives one every 15 s."""

CLOSE_S = 1.0
"""How exactly a time limit is kept, seconds."""


class Lines:
    """Lines become events."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def take(self, line: str) -> Event | None:
        """The event that a line completes.

        Raises:
            ApiError: what comes are no events of this server's.
        """
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and "data" in self._fields:
                value = f"{self._fields['data']}\n{value}"
            if name in ("id", "event", "data"):
                self._fields[name] = value
            return None
        fields, self._fields = self._fields, {}
        return _event(fields) if "data" in fields else None


class Stream:
    """One view's events over as many connections as it takes.

    Args:
        view: whose they are.
        after: number of the last event that is known.
        retrying: how often it is connected again without a new event in between, and after which waits.
        timeout_s: after which `TimeoutError` is raised; None is never.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        view: View | str,
        after: int,
        retrying: Retrying,
        timeout_s: float | int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view, self._after, self._retrying, self._clock = id_of(view), after, retrying, clock
        self._timeout_s = timeout_s
        self._until = None if timeout_s is None else clock() + timeout_s
        self._lines, self._failures = Lines(), 0
        self.is_over = False
        self.silence_s, self.wait_s = IDLE_S, 0.0

    def call(self) -> Call[None]:
        """The next connection's request; `silence_s` says how long its lines are waited for.

        Once it has ended, `wait_s` says after which time comes the next one, unless `is_over`.

        Raises:
            TimeoutError: the time is over.
        """
        self._lines, self.wait_s = Lines(), 0.0
        self.silence_s = min(IDLE_S, self._left_s())
        return self._call()

    def _call(self) -> Call[None]:
        return Call(
            method="GET",
            path=f"/v1/views/{self._view}/events",
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(self._after)},
            read=lambda answer: None,
        )

    def take(self, line: str) -> Event | None:
        """The event that a line completes; None if there is none, or it is known."""
        event = self._lines.take(line)
        if event is None or event.seq <= self._after:
            return None
        self._after, self._failures = event.seq, 0
        self.is_over = event.is_final
        return event

    @property
    def is_near_timeout(self) -> bool:
        """Whether the connection waits for lines for longer than there is time: a new one would not."""
        return self._until is not None and self._until - self._clock() < self.silence_s - CLOSE_S

    def answered(self, answer: Answer) -> None:
        """The answer is no stream of events.

        Raises:
            ApiError: the server said no.
        """
        if answer.status == 204:
            self.is_over = True
            return
        self._fail(answer, answer.error)

    def broken(self, why: str, address: str) -> None:
        """The connection broke, or could not be made.

        Raises:
            UnreachableError: it broke too often.
            TimeoutError: the time is over.
        """
        self._left_s()
        self._fail(Lost(why=why, was_sent=True, address=address), UnreachableError(address, why))

    def _fail(self, outcome: Answer | Lost, error: Exception) -> None:
        """Raises `error` unless there is to be another connection."""
        wait_s = self._retrying.wait_s(self._call(), outcome, self._failures)
        if wait_s is None:
            raise error
        self._failures += 1
        self.wait_s = min(wait_s, self._left_s())

    def _left_s(self) -> float:
        """Seconds until the time limit.

        Raises:
            TimeoutError: the time is over.
        """
        left_s = float("inf") if self._until is None else self._until - self._clock()
        if left_s <= 0:
            raise TimeoutError(f"view {self._view}: it has not ended within {self._timeout_s:g} s")
        return left_s


class Share:
    """How much of a view is done, 0..1, as its events tell it: the preview is a tenth, the rest goes by frames.

    Args:
        num_frames: of the view.
    """

    def __init__(self, num_frames: int) -> None:
        self._num_frames = num_frames
        self._previewed: set[int] = set()
        self._refined: set[int] = set()
        self._targets: dict[int, set[int]] = {}
        self._begun = 0.0
        self.value = 0.0

    def take(self, event: Event) -> float:
        """The share behind an event; it never falls."""
        data = event.data
        if event.kind == "preview_frame":
            self._previewed.add(data["index"])
        elif event.kind == "plan":
            self._targets[data["unit"]] = set(data["targets"])
        elif event.kind == "frame_refined":
            self._refined.add(data["index"])
        elif event.kind == "progress" and data["total"]:
            left = self._targets.get(data["unit"], set()) - self._refined
            self._begun = len(left) * data["done"] / data["total"]
        done = 0.1 * len(self._previewed) + 0.9 * min(self._num_frames, len(self._refined) + self._begun)
        if event.kind == "frame_refined":
            self._begun = 0.0
        self.value = 1.0 if event.kind == "completed" else max(self.value, min(1.0, done / self._num_frames))
        return self.value


def _event(fields: dict[str, str]) -> Event:
    """An event of its fields."""
    try:
        data = json.loads(fields["data"])
        view, at_s = data.pop("view"), float(data.pop("at_s"))
        return Event(seq=int(fields["id"]), kind=fields["event"], view=view, at_s=at_s, data=data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ApiError(status=200, detail="what was streamed are no events of a view") from error
