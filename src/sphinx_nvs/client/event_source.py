"""Server-sent events, and streams that resume after the last event when their connection breaks.

    field: value    lines of an event, up to an empty line          : text    a keep-alive comment

Reference: WHATWG HTML, section 9.2 "Server-sent events".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from sphinx_nvs.client.calls import Call, NoResponse, Response, id_of
from sphinx_nvs.client.exceptions import ApiError, SceneFailedError, UnreachableError
from sphinx_nvs.client.retrying import Retrying
from sphinx_nvs.client.values import Event, Job, Scene

IDLE_S = 45.0
"""A stream without even a keep-alive comment for this long counts as broken; the server sends one every 15 s."""

CLOSE_S = 1.0
"""Tolerance of time limits, seconds."""


class LineParser:
    """Parses lines to events."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def take(self, line: str) -> Event | None:
        """Takes a line; returns the event that it completes.

        Raises:
            ApiError: the line is not from an event stream of the server.
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


class EventSource:
    """One job's events over as many connections as necessary.

    Args:
        job: the job.
        after: number of the last known event.
        retrying: how often, and after which waits, to reconnect without a new event in between.
        timeout_s: time limit in seconds; None for none.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        job: Job | str,
        after: int,
        retrying: Retrying,
        timeout_s: float | int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job, self._after, self._retrying, self._clock = id_of(job), after, retrying, clock
        self._timeout_s = timeout_s
        self._until = None if timeout_s is None else clock() + timeout_s
        self._parser, self._failures = LineParser(), 0
        self.is_over = False
        self.silence_s, self.wait_s = IDLE_S, 0.0

    def call(self) -> Call[None]:
        """Returns the next connection's request; `silence_s` is how long to wait for a line.

        After the connection has ended, `wait_s` is the wait before the next one, unless `is_over`.

        Raises:
            TimeoutError: the time limit has passed.
        """
        # A new parser: half an event from the broken connection must not join the next one's first lines.
        self._parser, self.wait_s = LineParser(), 0.0
        self.silence_s = min(IDLE_S, self._left_s())
        return self._call()

    def _call(self) -> Call[None]:
        return Call(
            method="GET",
            path=f"/v1/jobs/{self._job}/events",
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(self._after)},
            read=lambda response: None,
        )

    def take(self, line: str) -> Event | None:
        """Takes a line; returns the event that it completes, None if there is none or it is known."""
        event = self._parser.take(line)
        # A server may repeat events after a reconnection; their numbers say which are known.
        if event is None or event.seq <= self._after:
            return None
        # Only a new event counts as progress: a server that accepts connections and drops them must not be retried
        # forever.
        self._after, self._failures = event.seq, 0
        self.is_over = event.is_final
        return event

    @property
    def is_near_timeout(self) -> bool:
        """Whether the connection would wait past the time limit, so that a new one with a shorter wait is needed."""
        return self._until is not None and self._until - self._clock() < self.silence_s - CLOSE_S

    def refused(self, response: Response) -> None:
        """Handles a response that is not an event stream.

        Raises:
            ApiError: the response is an error that is not retried.
        """
        if response.status == 204:
            self.is_over = True
            return
        self._fail(response, response.error)

    def disconnected(self, reason: str, address: str) -> None:
        """Handles a connection that broke, or could not be made.

        Raises:
            UnreachableError: it broke too often.
            TimeoutError: the time limit has passed.
        """
        self._left_s()
        self._fail(NoResponse(reason=reason, was_sent=True, address=address), UnreachableError(address, reason))

    def _fail(self, outcome: Response | NoResponse, error: Exception) -> None:
        """Raises `error` unless there is another attempt."""
        wait_s = self._retrying.wait_s(self._call(), outcome, self._failures)
        if wait_s is None:
            raise error
        self._failures += 1
        self.wait_s = min(wait_s, self._left_s())

    def _left_s(self) -> float:
        """Returns the seconds until the time limit.

        Raises:
            TimeoutError: the time limit has passed.
        """
        left_s = float("inf") if self._until is None else self._until - self._clock()
        if left_s <= 0:
            raise TimeoutError(f"job {self._job}: it has not ended within {self._timeout_s:g} s")
        return left_s


class Progress:
    """The share of a job that is done, 0..1, from its events: the preview counts a tenth, refined frames the rest.

    Args:
        num_frames: number of frames of the job.
    """

    def __init__(self, num_frames: int) -> None:
        self._num_frames = num_frames
        self._previewed: set[int] = set()
        self._refined: set[int] = set()
        self._targets: dict[int, set[int]] = {}
        self._partial = 0.0
        self.value = 0.0

    def update(self, event: Event) -> float:
        """Takes an event; returns the share, which never decreases."""
        data = event.data
        if event.kind == "preview_frame":
            self._previewed.add(data["index"])
        elif event.kind == "plan":
            self._targets[data["unit"]] = set(data["targets"])
        elif event.kind == "frame_refined":
            self._refined.add(data["index"])
        elif event.kind == "progress" and data["total"]:
            # A unit's steps count for its frames together, until each of them arrives and counts by itself.
            left = self._targets.get(data["unit"], set()) - self._refined
            self._partial = len(left) * data["done"] / data["total"]
        done = 0.1 * len(self._previewed) + 0.9 * min(self._num_frames, len(self._refined) + self._partial)
        if event.kind == "frame_refined":
            self._partial = 0.0
        self.value = 1.0 if event.kind == "completed" else max(self.value, min(1.0, done / self._num_frames))
        return self.value


def _event(fields: dict[str, str]) -> Event:
    """Converts an event's fields."""
    try:
        data = json.loads(fields["data"])
        data.pop("view", None)  # the deprecated name of `job`
        job, at_s = data.pop("job"), float(data.pop("at_s"))
        return Event(seq=int(fields["id"]), kind=fields["event"], job=job, at_s=at_s, data=data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ApiError(status=200, detail="the stream does not contain a job's events") from error


class SceneWait:
    """How long to wait for the cameras of a scene's photos: states are read at intervals that grow.

    Args:
        timeout_s: time limit in seconds; None for none.
    """

    def __init__(self, timeout_s: float | int | None) -> None:
        self._end = None if timeout_s is None else time.monotonic() + timeout_s
        self.wait_s = 0.25

    def is_over(self, scene: Scene) -> bool:
        """Whether the scene is ready.

        Raises:
            SceneFailedError: its photos do not determine cameras.
            TimeoutError: the time is over.
        """
        if scene.status == "failed":
            raise SceneFailedError(scene)
        if scene.status == "ready":
            return True
        if self._end is not None and time.monotonic() >= self._end:
            raise TimeoutError(f"scene {scene.id}: its cameras are not found within the time limit; wait longer")
        self.wait_s = min(3.0, 1.2 * self.wait_s)
        return False
