"""`/v1/videos`: jobs in the terms of OpenAI's video API, for its SDKs and for load generators.

Fields that API does not have (scene, cameras, path, quality, deadline_s ...) stand beside its own, as SDKs send
`extra_body`, or in `extra_body`, `extra_params` or `metadata` as an object or as its JSON. Unknown fields are refused;
fields without a meaning here are ignored and named in `warnings`.

    queued -> queued      previewed, refining -> in_progress      completed -> completed      all other ends -> failed
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from sphinx_nvs.engine.types.jobs import JobRow, JobState
from sphinx_nvs.server.api.openapi import binary, problems
from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.api.responses import progress_of
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.api.video_bodies import BODY, Video, VideoDeleted, VideoError, VideoPage, job_request, read_body
from sphinx_nvs.server.auth import CallerDep, ContextDep, own_job
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.files import REVALIDATE, artifact_response, video_response
from sphinx_nvs.server.routes.job_routes import submit
from sphinx_nvs.server.routes.parameters import After, IdempotencyKey, Limit, VideoId

router = APIRouter(prefix="/v1/videos", tags=["videos (OpenAI)"])

_STATUS = {
    JobState.QUEUED: "queued",
    JobState.PREVIEWED: "in_progress",
    JobState.REFINING: "in_progress",
    JobState.COMPLETED: "completed",
}


@router.post(
    "",
    operation_id="create_video",
    summary="Create a video",
    openapi_extra=BODY,
    responses=problems(403, 404, 413, 415, 507),
)
async def create_video(
    request: Request, caller: CallerDep, context: ContextDep, idempotency_key: IdempotencyKey = None
) -> Video:
    """Creates a job as `POST /v1/jobs` does; the scene is `demo` unless `scene` names another."""
    body, warnings = job_request(await read_body(request), context.backend.config.preset)
    job = await submit(context, caller, body, idempotency_key)
    return await _video(context, job, warnings)


@router.get("", operation_id="list_videos", summary="List videos", responses=problems(404))
async def list_videos(
    caller: CallerDep,
    context: ContextDep,
    after: After = None,
    limit: Limit = 20,
    order: Annotated[Literal["desc"], Query(description="Newest first, the only order.")] = "desc",
) -> VideoPage:
    """Lists the caller's videos."""
    if after is not None:
        await own_job(context, caller, after)
    rows = await context.backend.jobs(key_id=caller.key_id, after=after, limit=limit + 1)
    videos = [await _video(context, row) for row in rows[:limit]]
    ids = [video.id for video in videos]
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return VideoPage(data=videos, first_id=first, last_id=last, has_more=len(rows) > limit)


@router.get("/{video_id}", operation_id="get_video", summary="Get a video", responses=problems(404))
async def get_video(video_id: VideoId, caller: CallerDep, context: ContextDep) -> Video:
    """Returns a video's state and progress."""
    return await _video(context, await own_job(context, caller, video_id))


@router.delete(
    "/{video_id}", operation_id="delete_video", summary="Cancel or delete a video", responses=problems(403, 404, 507)
)
async def delete_video(video_id: VideoId, caller: CallerDep, context: ContextDep) -> VideoDeleted:
    """Cancels an unfinished video; deletes a finished one and its files."""
    job = await own_job(context, caller, video_id)
    if job.state.is_final:
        await context.backend.delete(video_id)
        return VideoDeleted(id=video_id, deleted=True)
    ended = await context.backend.cancel(video_id)
    return VideoDeleted(id=video_id, deleted=ended is None or ended.state is not JobState.COMPLETED)


@router.head("/{video_id}/content", include_in_schema=False)
@router.get(
    "/{video_id}/content",
    operation_id="get_video_content",
    summary="Get the file",
    response_class=Response,
    responses={
        **binary("video/mp4", "The video, or with `variant=thumbnail` its first frame.", "image/png", has_ranges=True),
        **problems(404, 409, 416),
    },
)
async def get_video_content(
    video_id: VideoId,
    request: Request,
    caller: CallerDep,
    context: ContextDep,
    variant: Annotated[Literal["video", "thumbnail"], Query(description="Which file.")] = "video",
) -> Response:
    """Returns the video as mp4 once it is completed."""
    job = await own_job(context, caller, video_id)
    if variant == "thumbnail":
        level = "final" if job.level == "final" else "preview"
        digest = await context.backend.frame(video_id, 0, level)
        if digest is None:
            raise ProblemError(409, "No frame is ready yet.", headers=retry_after(1))
        return await artifact_response(context, request, job, digest, media_type="image/png", cache=REVALIDATE)
    if not job.state.is_final:
        raise ProblemError(409, "The video is not completed yet.", headers=retry_after(1))
    return await video_response(context, job, request)


async def _video(context: Context, job: JobRow, warnings: list[str] | None = None) -> Video:
    """Returns a job as a video of that API."""
    spec, status = job.spec, _STATUS.get(job.state, "failed")
    error = VideoError(code=job.state.value, message=scrub(job.reason) or f"The job was {job.state.value}.")
    units = [] if job.state.is_final or job.state is JobState.QUEUED else await context.backend.units(job.id)
    return Video(
        id=job.id,
        model=context.backend.config.preset,
        status=status,  # type: ignore[arg-type]
        progress=int(100 * progress_of(job, units)),
        created_at=int(job.created_s),
        completed_at=None if job.finished_s is None else int(job.finished_s),
        expires_at=None if job.expires_s is None else int(job.expires_s),
        size=f"{spec.width}x{spec.height}",
        seconds=f"{spec.num_views / spec.fps:.4g}",
        error=error if status == "failed" else None,
        warnings=warnings or [],
    )
