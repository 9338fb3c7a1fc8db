"""A job's events as server-sent events: stored events first, then new ones until the last.

Reference: WHATWG HTML, section 9.2 "Server-sent events". `id` is the event's number, so that a client resumes with
`Last-Event-ID`. A stream without remaining events answers 204, which tells browsers not to reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sphinx_nvs.engine.types.jobs import Event, EventKind, JobRow, Quote
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.server.api.responses import QuoteResponse
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.auth import Caller, may_stay
from sphinx_nvs.server.context import STREAM_CHECK_S, Context

SEND_TIMEOUT_S = 60.0
"""A client that reads nothing for this long is disconnected, seconds."""


END_S = 3.0
"""Time in which streams end once the server stops, seconds; shorter than `uvicorn_runner.CLOSE_S`."""


class CountedResponse(EventSourceResponse):
    """An event stream that counts against its caller's limit from before its first byte until it closes.

    Raises ProblemError (429) instead of starting when the caller has too many open streams.
    """

    slot: contextlib.AbstractContextManager[None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream."""
        with self.slot:
            await super().__call__(scope, receive, send)


async def stream_response(context: Context, caller: Caller, job: JobRow, after: int) -> Response:
    """Returns the stream of a job's events after number `after`, or 204 if the job ended and none follow."""
    if job.state.is_final and not await _has_events(context, job.id, after):
        return Response(status_code=204)
    return counted_stream(context, caller, _events(context, caller, job.id, after))


def counted_stream(context: Context, caller: Caller, events: AsyncIterator[ServerSentEvent]) -> CountedResponse:
    """Returns a stream of events, kept alive, that counts against its caller's limit.

    It ends when the server stops; its client asks again for what follows.
    """
    stopping = anyio.Event()
    response = CountedResponse(
        _until(stopping, events),
        shutdown_event=stopping,
        shutdown_grace_period=END_S,
        ping=context.config.ping_s,
        ping_message_factory=_keep_alive,  # type: ignore[arg-type]  # bytes are sent as they are
        send_timeout=SEND_TIMEOUT_S,
        sep="\n",
    )
    # Taken when the response starts: between this line and that the client may be gone, and the slot would never be
    # given back.
    response.slot = context.streams.counted(caller.name, caller.limits.streams)
    return response


async def _until(stopping: anyio.Event, events: AsyncIterator[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
    """Yields events until the last, or until the server stops; closes their iterator."""
    end = asyncio.ensure_future(stopping.wait())
    try:
        async with contextlib.aclosing(events):  # type: ignore[type-var]
            while (event := await _next_before(end, events)) is not None:
                yield event
    finally:
        end.cancel()


async def _next_before(end: asyncio.Future[None], events: AsyncIterator[ServerSentEvent]) -> ServerSentEvent | None:
    """Returns the next event; None after the last, or once `end` is done."""
    waiting = asyncio.ensure_future(anext(events, None))
    try:
        either: set[asyncio.Future[Any]] = {waiting, end}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()
        # The iterator may be closed only after its last call has ended.
        await asyncio.gather(waiting, return_exceptions=True)


def _keep_alive() -> bytes:
    """Returns a comment without the empty line that some clients take for the end of an event."""
    return b": ping\n"


async def _has_events(context: Context, job_id: str, after: int) -> bool:
    """Returns whether a finished job has events after this number."""
    async with contextlib.aclosing(context.backend.events(job_id, after)) as events:  # type: ignore[type-var]
        async for _ in events:
            return True
    return False


async def _events(context: Context, caller: Caller, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    """Yields encoded events; closing the iterator, or losing the client, closes the engine's stream.

    The stream ends when its caller may not see it any more.
    """
    async with contextlib.aclosing(context.backend.events(job_id, after)) as events:  # type: ignore[type-var]
        while (event := await _next_event(context, caller, events)) is not None:
            yield ServerSentEvent(data=json.dumps(wire_data(event)), event=event.kind.value, id=str(event.seq))


async def _next_event(context: Context, caller: Caller, events: AsyncIterator[Event]) -> Event | None:
    """Returns the next event; None after the last, or once the caller's key is revoked."""
    waiting = asyncio.ensure_future(anext(events, None))
    try:
        while not (await asyncio.wait({waiting}, timeout=STREAM_CHECK_S))[0]:
            if not await may_stay(context, caller):
                return None
        return waiting.result()
    finally:
        waiting.cancel()
        # The iterator may be closed only after its last call has ended.
        await asyncio.gather(waiting, return_exceptions=True)


def wire_data(event: Event) -> JSONObject:
    """Returns an event's data for clients: URLs in place of digests, no paths of this machine.

    `view` repeats `job` for clients of the deprecated `/v1/views`.
    """
    data: JSONObject = {
        key: scrub(value) if isinstance(value, str) else value for key, value in event.data.items() if key != "frame"
    }
    if event.kind in (EventKind.PREVIEW_FRAME, EventKind.FRAME_REFINED):
        level = "preview" if event.kind is EventKind.PREVIEW_FRAME else "final"
        data["url"] = f"/v1/jobs/{event.job_id}/frames/{data['index']}?level={level}"
    if "why" in data:
        data["reason"] = data.pop("why")
    if data.get("quote") is not None:
        data["quote"] = QuoteResponse.of(Quote(**data["quote"])).model_dump()
    return {"job": event.job_id, "view": event.job_id, "at_s": event.at_s, **data}
