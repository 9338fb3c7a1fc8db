"""`/v1/jobs`: new views of a scene, from the quote to the end of the job.

body ─► JobSpec ─► Engine.accept ─► 202 with the quote, long before the first frame
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.store.row_types import SceneRow, Usage
from sphinx_nvs.engine.types.jobs import EventKind, JobRow, JobSpec
from sphinx_nvs.server.api.openapi import problems
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.api.requests import JobRequest
from sphinx_nvs.server.api.responses import Job, JobPage, QuoteResponse
from sphinx_nvs.server.auth import Caller, CallerDep, ContextDep, own_job, own_ready_scene
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.limits import check_running, check_storage
from sphinx_nvs.server.routes.parameters import After, IdempotencyKey, JobId, Limit
from sphinx_nvs.server.scenes.target_cameras import targets_of
from sphinx_nvs.server.sse import stream_response

router = APIRouter(prefix="/v1", tags=["jobs"])

_EVENT = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "description": "Number of the event; a stream can resume after it."},
        "event": {"type": "string", "enum": [kind.value for kind in EventKind]},
        "data": {
            "type": "string",
            "description": "JSON: job, at_s, and the fields of the kind; see docs/reference/http-api.md.",
        },
    },
}


async def requires_json(request: Request) -> None:
    """Raises ProblemError, 415, unless a request's Content-Type is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ProblemError(415, "Send a JSON object, with Content-Type: application/json.")


@router.post(
    "/jobs",
    status_code=202,
    operation_id="create_job",
    summary="Create a job",
    dependencies=[Depends(requires_json)],
    responses=problems(403, 404, 409, 413, 415, 507),
)
async def create_job(
    body: JobRequest,
    response: Response,
    caller: CallerDep,
    context: ContextDep,
    idempotency_key: IdempotencyKey = None,
) -> Job:
    """Accepts a job and returns its predicted latency and quality as `quote`.

    `quality` requests frames of that quality, `deadline_s` the best frames that are ready by then. Under load, quality
    is lowered, never below `min_quality`, and the event stream reports it.
    """
    job = await submit(context, caller, body, idempotency_key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return Job.of(job, await context.backend.units(job.id))


@router.post(
    "/jobs:quote",
    operation_id="quote_job",
    summary="Quote a job",
    dependencies=[Depends(requires_json)],
    responses=problems(403, 404, 409, 413, 415),
)
async def quote_job(body: JobRequest, caller: CallerDep, context: ContextDep) -> QuoteResponse:
    """Returns the quote that `POST /v1/jobs` would return now for the same request, without creating a job."""
    return QuoteResponse.of(await context.backend.quote(await spec_of(context, caller, body)))


@router.get("/jobs", operation_id="list_jobs", summary="List jobs", responses=problems(404))
async def list_jobs(
    caller: CallerDep,
    context: ContextDep,
    after: After = None,
    limit: Limit = 20,
) -> JobPage:
    """Lists the caller's jobs, newest first."""
    if after is not None:
        await own_job(context, caller, after)
    # One more than the page, to know whether another follows.
    rows = await context.backend.jobs(key_id=caller.key_id, after=after, limit=limit + 1)
    has_more = len(rows) > limit
    following = f"/v1/jobs?after={rows[limit - 1].id}&limit={limit}" if has_more else None
    return JobPage(data=[Job.of(row) for row in rows[:limit]], has_more=has_more, next=following)


@router.get("/jobs/{job_id}", operation_id="get_job", summary="Get a job", responses=problems(404))
async def get_job(job_id: JobId, caller: CallerDep, context: ContextDep) -> Job:
    """Returns a job's state and progress."""
    job = await own_job(context, caller, job_id)
    return Job.of(job, await context.backend.units(job_id))


@router.delete(
    "/jobs/{job_id}", operation_id="cancel_job", summary="Cancel or delete a job", responses=problems(403, 404, 507)
)
async def cancel_job(job_id: JobId, caller: CallerDep, context: ContextDep) -> Job:
    """Cancels an unfinished job, whose device is free within one step; deletes a finished job and its files.

    Returns the job after cancellation, or before deletion. Two requests delete an unfinished job. A job that completes
    while it is being cancelled is not deleted.
    """
    job = await own_job(context, caller, job_id)
    if job.state.is_final:
        last = Job.of(job, await context.backend.units(job_id))
        await context.backend.delete(job_id)
        return last
    ended = await context.backend.cancel(job_id)
    if ended is None:
        raise ProblemError(404, "The job does not exist any more.")
    return Job.of(ended, await context.backend.units(job_id))


@router.get(
    "/jobs/{job_id}/events",
    operation_id="stream_job_events",
    summary="Stream a job's events",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events; the last is completed, failed, cancelled or expired "
            "(docs/reference/http-api.md).",
            "content": {
                "text/event-stream": {
                    "schema": _EVENT,
                    "example": 'id: 7\nevent: preview_frame\ndata: {"job": "...", "index": 0, "url": "..."}\n\n',
                }
            },
        },
        204: {"description": "The job has ended and no event follows `Last-Event-ID`."},
        **problems(404),
    },
)
async def stream_job_events(
    job_id: JobId,
    caller: CallerDep,
    context: ContextDep,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=2**62, description="Number of the last event received; sent by browsers.")
    ] = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="The same, for clients that set no headers.")] = 0,
) -> Response:
    """Streams past events, then new ones until the last. A stream that broke can be resumed."""
    job = await own_job(context, caller, job_id)
    return await stream_response(context, caller, job, after if last_event_id is None else last_event_id)


async def submit(context: Context, caller: Caller, body: JobRequest, idempotency_key: str | None) -> JobRow:
    """Accepts the requested job and postpones its scene's expiry.

    Raises:
        InputError: the request is invalid.
        RefusedError: the queue is full, or the engine is closing.
        ProblemError: the server is shutting down, or the caller is over a limit.
    """
    context.check_open()

    def check_limits(usage: Usage) -> None:
        check_running(usage, caller.limits)
        check_storage(usage, caller.limits)

    spec = await spec_of(context, caller, body)
    job, is_new = await context.backend.accept(
        spec, key_id=caller.key_id, idempotency_key=idempotency_key, allow=check_limits
    )
    # Postponed only for a new job: repeating an old request must not keep a scene for ever.
    if is_new:
        await context.backend.library.keep_scene(spec.scene, ttl_s=context.config.scene_ttl_s)
    return job


async def spec_of(context: Context, caller: Caller, body: JobRequest) -> JobSpec:
    """Returns the specification of the requested job.

    Raises:
        InputError: the target cameras are invalid.
        ProblemError: 404 if the scene does not exist, 409 if it has no cameras (yet).
    """
    scene = await own_ready_scene(context, caller, body.scene)
    # In a thread: it reads the scene's file, and up to thousands of cameras are checked one by one.
    return await run_in_threadpool(spec_from, body, scene, context.backend.config)


def spec_from(body: JobRequest, scene: SceneRow, config: EngineConfig) -> JobSpec:
    """What the engine is to compute: the body's fields, and the target cameras as numbers."""
    cameras, world, notes = targets_of(body, scene, config)
    return JobSpec(
        scene=scene.id,
        c2w=tuple(tuple(map(tuple, pose)) for pose in cameras.c2w.tolist()),
        K=tuple(tuple(map(tuple, K)) for K in cameras.K.tolist()),
        width=cameras.width,
        height=cameras.height,
        fps=float(body.fps),
        quality=body.quality,
        deadline_s=body.deadline_s,
        min_quality=float(body.min_quality),
        seed=body.seed,
        priority=body.priority,
        world=world,
        notes=notes,
    )
