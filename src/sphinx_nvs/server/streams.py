"""A view's events as server-sent events: what is stored first, then what happens, until the last one.

Reference: WHATWG HTML, section 9.2 "Server-sent events". `id` is the event's number, so that `Last-Event-ID` goes on
behind it; a stream that has nothing left answers 204, which tells browsers not to connect again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sphinx_nvs.engine.types.jobs import Event, EventKind, JobRow, Quote
from sphinx_nvs.server.api.responses import QuoteAnswer
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.auth import Caller
from sphinx_nvs.server.context import Context

SEND_S = 60.0
"""A client that takes nothing for so long is given up, seconds."""


class CountedResponse(EventSourceResponse):
    """A stream that is let in and counted in one step, before its first byte; else it raises ProblemError, 429."""

    counted: contextlib.AbstractContextManager[None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        with self.counted:
            await super().__call__(scope, receive, send)


async def stream_response(context: Context, caller: Caller, job: JobRow, after: int) -> Response:
    """The stream behind event `after`; if the caller has too many open, it answers 429."""
    if job.state.is_final and await _is_told(context, job.id, after):
        return Response(status_code=204)
    response = CountedResponse(
        _events(context, job.id, after),
        ping=context.config.ping_s,
        ping_message_factory=_ping,  # type: ignore[arg-type]  # bytes go through as they are
        send_timeout=SEND_S,
        sep="\n",
    )
    response.counted = context.streams.counted(caller.name, caller.limits)
    return response


def _ping() -> bytes:
    """A comment, without the empty line that some clients take for the end of an event."""
    return b": ping\n"


async def _is_told(context: Context, job_id: str, after: int) -> bool:
    """Whether a finished job has no event behind this one."""
    async with contextlib.aclosing(context.backend.events(job_id, after)) as events:  # type: ignore[type-var]
        async for _ in events:
            return False
    return True


async def _events(context: Context, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    """Events as the wire has them; closing it, or losing the client, closes the engine's stream."""
    async with contextlib.aclosing(context.backend.events(job_id, after)) as events:  # type: ignore[type-var]
        async for event in events:
            yield ServerSentEvent(data=json.dumps(wire_data(event)), event=event.kind.value, id=str(event.seq))


def wire_data(event: Event) -> dict[str, Any]:
    """An event's data for clients: digests become addresses, sentences name no place of this machine."""
    data: dict[str, Any] = {
        key: scrub(value) if isinstance(value, str) else value for key, value in event.data.items() if key != "frame"
    }
    if event.kind in (EventKind.PREVIEW_FRAME, EventKind.FRAME_REFINED):
        level = "preview" if event.kind is EventKind.PREVIEW_FRAME else "final"
        data["url"] = f"/v1/views/{event.job_id}/frames/{data['index']}?level={level}"
    if data.get("quote") is not None:
        data["quote"] = QuoteAnswer.of(Quote(**data["quote"])).model_dump()
    return {"view": event.job_id, "at_s": event.at_s, **data}
