"""Sends a trace of requests to a real server, and records the outcome of each.

Open loop: a request goes out at its time, not when an earlier one was answered, and every time counts from when it was
to be sent. Outcomes have the form of a simulation's, so that the same figures are computed from both.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import httpx

from sphinx_nvs.client import ApiError, AsyncClient, Event, Job, Retrying, UnreachableError
from sphinx_nvs.client.job_options import JobOptions
from sphinx_nvs.engine.types.jobs import Quote
from sphinx_nvs.load_testing.server_process import POLL_S
from sphinx_nvs.load_testing.simulation.arrivals import Arrival
from sphinx_nvs.load_testing.simulation.simulate import Outcome, Run

Requests: TypeAlias = Callable[[Arrival], JobOptions]
"""The request of an arrival."""

NOTHING = Quote(latency_s=0.0, latency_p95_s=0.0, wait_s=0.0, quality=0.0, active_share=0.0, reason="")
"""The quote of a request that was not accepted."""

DISTANT_S = 86_400.0
"""A deadline that is never tight."""

IDLE = 100
"""Connections that are kept for later."""

REFUSED = (429, 503)
"""Answers that are part of serving; others are mistakes."""


def as_requested(arrival: Arrival) -> JobOptions:
    """The request itself: the server chooses quality between the requested one and the floor."""
    request = _frames(arrival)
    if arrival.quality is not None:
        request["quality"] = arrival.quality
    if arrival.deadline_s is not None:
        request["deadline_s"] = arrival.deadline_s
    request["min_quality"] = arrival.min_quality
    return request


def fixed(quality: float, *, with_deadline: bool) -> Requests:
    """Every request at one quality, instead of its own.

    Args:
        quality: quality of all requests.
        with_deadline: whether requests have their deadlines; otherwise all have the same, which is so distant that it
            works in order of arrival.
    """

    def request_of(arrival: Arrival) -> JobOptions:
        request = _frames(arrival)
        request["quality"] = request["min_quality"] = quality
        request["deadline_s"] = DISTANT_S
        if with_deadline and arrival.deadline_s is not None:
            request["deadline_s"] = arrival.deadline_s
        return request

    return request_of


def _frames(arrival: Arrival) -> JobOptions:
    """The request without quality and time."""
    return JobOptions(path="interpolate", num_frames=arrival.views, size=(arrival.width, arrival.height))


class Sender:
    """Sends traces to a server.

    Args:
        url: address of the server.
        api_key: API key, if the server needs one.
        scene: scene of the views.
    """

    def __init__(self, url: str, api_key: str | None = None, scene: str = "demo") -> None:
        # As many connections as there are streams: with fewer, requests would wait for earlier ones to end.
        http = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None, max_keepalive_connections=IDLE))
        self._client = AsyncClient(url, api_key, retrying=Retrying(attempts=1), http=http)
        self._scene = scene
        self.problems: list[str] = []

    async def __aenter__(self) -> Sender:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    async def send(self, arrivals: Sequence[Arrival], requests: Requests, *, until_s: float | int) -> Run:
        """Sends a trace, and returns once all is done, at the latest after `until_s`; what is left then is cancelled.

        Args:
            arrivals: in order of time.
            requests: the request of each arrival.
            until_s: seconds after the start.
        """
        began = time.monotonic()
        watches = [_Watch(arrival, began + arrival.at_s) for arrival in arrivals]
        tasks = []
        for watch in watches:
            await asyncio.sleep(max(0.0, watch.due - time.monotonic()))
            tasks.append(asyncio.create_task(self._follow(watch, requests(watch.outcome.arrival))))
        await asyncio.wait(tasks, timeout=max(0.0, began + until_s - time.monotonic()))
        end_s = time.monotonic() - began
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(error, Exception):
                self.problems.append(str(error))
        await self._clear(watches)
        return Run(outcomes=[watch.outcome for watch in watches], devices=await self.devices(), end_s=end_s)

    async def devices(self) -> int:
        """Number of the server's devices."""
        return len((await self._client.capacity()).devices)

    async def seconds(self, request: JobOptions, times: int) -> list[float]:
        """Seconds of a view by its client's clock, alone on the server, repeated `times` times."""
        found = []
        for _ in range(times):
            began = time.monotonic()
            await self._client.wait(await self._client.create_job(self._scene, **request))
            found.append(time.monotonic() - began)
        return found

    async def _follow(self, watch: _Watch, request: JobOptions) -> None:
        """Sends a request and listens until its end."""
        try:
            view = await self._client.create_job(self._scene, **request)
        except ApiError as error:
            if error.status not in REFUSED:
                self.problems.append(str(error))
            return
        except UnreachableError as error:
            self.problems.append(str(error))
            return
        watch.accepted(view)
        async for event in self._client.events(view):
            watch.receive(event, time.monotonic())

    async def _clear(self, watches: Sequence[_Watch]) -> None:
        """Cancels what is unfinished, and waits until the devices have nothing to do."""
        for watch in watches:
            if watch.view is not None and not watch.is_over:
                with contextlib.suppress(ApiError, UnreachableError):
                    await self._client.cancel(watch.view)
        while (capacity := await self._client.capacity()).queued + capacity.running > 0:
            await asyncio.sleep(POLL_S)


class _Watch:
    """A request that has been or will be sent.

    Args:
        arrival: the request.
        due: when it is to be sent, monotonic seconds.
    """

    def __init__(self, arrival: Arrival, due: float) -> None:
        self.due = due
        self.outcome = Outcome(arrival=arrival, quote=NOTHING, accepted=False)
        self.view: Job | None = None
        self.is_over = False
        self._previews: set[int] = set()
        self._plans: dict[int, tuple[float, int]] = {}

    def accepted(self, view: Job) -> None:
        """The server has taken it on."""
        self.view, self.outcome.accepted = view, True
        if view.quote is not None:
            quote = view.quote
            self.outcome.quote = Quote(
                latency_s=quote.latency_p50_s,
                latency_p95_s=quote.latency_p95_s,
                wait_s=quote.wait_s,
                quality=quote.quality,
                active_share=quote.active_share,
                reason=quote.reason,
            )

    def receive(self, event: Event, now: float) -> None:
        """Something happened to it."""
        if event.kind == "preview_frame":
            self._previews.add(event.data["index"])
            if len(self._previews) == self.outcome.arrival.views and self.outcome.preview_s is None:
                self.outcome.preview_s = now - self.due
        elif event.kind == "plan":
            self._plans[event.data["unit"]] = (float(event.data["quality"]), len(event.data["targets"]))
            self.outcome.qualities = list(self._plans.values())
        elif event.kind == "degraded":
            self.outcome.degraded.append(event.data["reason"])
        elif event.is_final:
            self.is_over = True
            if event.kind == "completed" and event.data["level"] == "final":
                self.outcome.done_s = now - self.due
