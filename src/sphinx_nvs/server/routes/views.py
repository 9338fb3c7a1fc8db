"""`/v1/views`: new views of a scene, from the quote to the end of the job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi import Path as PathParam

from sphinx_nvs.engine.types.jobs import EventKind
from sphinx_nvs.server.api.openapi import problems
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.api.requests import ViewRequest
from sphinx_nvs.server.api.responses import QuoteAnswer, View, ViewPage
from sphinx_nvs.server.auth import CallerDep, ContextDep, own_job
from sphinx_nvs.server.streams import stream_response
from sphinx_nvs.server.submission import accepted, needs_json, spec_of

router = APIRouter(prefix="/v1", tags=["views"])

ViewId = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Of the view.")]
_EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "description": "Number of the event, to resume behind."},
        "event": {"type": "string", "enum": [kind.value for kind in EventKind]},
        "data": {
            "type": "string",
            "description": "JSON: view, at_s, and what belongs to the kind; see docs/server.md.",
        },
    },
}
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[!-~]{1,128}$",
        description="Any text of yours; the same one gives the same view again, however often the request is sent.",
    ),
]


@router.post(
    "/views",
    status_code=202,
    operation_id="create_view",
    summary="Ask for views",
    dependencies=[Depends(needs_json)],
    responses=problems(403, 404, 413, 415, 507),
)
async def create_view(
    wish: ViewRequest,
    response: Response,
    caller: CallerDep,
    context: ContextDep,
    idempotency_key: IdempotencyKey = None,
) -> View:
    """Takes on a job and tells what it will take: `quote`.

    Give `quality` to get frames that good, or `deadline_s` to get the best frames that are ready by then; under load
    quality is lowered, never below `min_quality`, and the stream of events says so.
    """
    job = await accepted(context, caller, wish, idempotency_key)
    response.headers["Location"] = f"/v1/views/{job.id}"
    return View.of(job, await context.backend.units(job.id))


@router.post(
    "/views:quote",
    operation_id="quote_view",
    summary="Ask what views would take",
    dependencies=[Depends(needs_json)],
    responses=problems(403, 404, 413, 415),
)
async def quote_view(wish: ViewRequest, caller: CallerDep, context: ContextDep) -> QuoteAnswer:
    """The quote that the same request would get now from `POST /v1/views`; nothing is taken on."""
    return QuoteAnswer.of(await context.backend.quote(await spec_of(context, caller, wish)))


@router.get("/views", operation_id="list_views", summary="List views", responses=problems(404))
async def list_views(
    caller: CallerDep,
    context: ContextDep,
    after: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Id of the last view of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Most views of a page.")] = 20,
) -> ViewPage:
    """Your views, newest first."""
    if after is not None:
        await own_job(context, caller, after)
    rows = await context.backend.jobs(key_id=caller.key_id, after=after, limit=limit + 1)
    has_more = len(rows) > limit
    following = f"/v1/views?after={rows[limit - 1].id}&limit={limit}" if has_more else None
    return ViewPage(data=[View.of(row) for row in rows[:limit]], has_more=has_more, next=following)


@router.get("/views/{view_id}", operation_id="get_view", summary="A view", responses=problems(404))
async def get_view(view_id: ViewId, caller: CallerDep, context: ContextDep) -> View:
    """How far it is."""
    job = await own_job(context, caller, view_id)
    return View.of(job, await context.backend.units(view_id))


@router.delete(
    "/views/{view_id}", operation_id="cancel_view", summary="Cancel or delete a view", responses=problems(403, 404, 507)
)
async def cancel_view(view_id: ViewId, caller: CallerDep, context: ContextDep) -> View:
    """Ends a view; its device is free within one step. One that has ended already is removed, and its files with it.

    The answer is the view as it is, or was. So twice is gone, and what ends by itself meanwhile is not.
    """
    job = await own_job(context, caller, view_id)
    if job.state.is_final:
        last = View.of(job, await context.backend.units(view_id))
        await context.backend.delete(view_id)
        return last
    ended = await context.backend.cancel(view_id)
    if ended is None:
        raise ProblemError(404, "There is no view of that id any more.")
    return View.of(ended, await context.backend.units(view_id))


@router.get(
    "/views/{view_id}/events",
    operation_id="stream_view_events",
    summary="What happens to it",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events; the last is completed, failed, cancelled or expired (docs/server.md).",
            "content": {
                "text/event-stream": {
                    "schema": _EVENT,
                    "example": 'id: 7\nevent: preview_frame\ndata: {"view": "...", "index": 0, "url": "..."}\n\n',
                }
            },
        },
        204: {"description": "Nothing comes behind `Last-Event-ID` any more."},
        **problems(404),
    },
)
async def stream_view_events(
    view_id: ViewId,
    caller: CallerDep,
    context: ContextDep,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=2**62, description="Number of the last event that you have; sent by browsers.")
    ] = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="The same, for clients that set no headers.")] = 0,
) -> Response:
    """Everything that happened so far, and then what happens, until the last event; lost streams can be resumed."""
    job = await own_job(context, caller, view_id)
    return await stream_response(context, caller, job, after if last_event_id is None else last_event_id)
