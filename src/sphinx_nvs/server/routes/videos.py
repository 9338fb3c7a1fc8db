"""`/v1/videos`: the same jobs in the words of OpenAI's video API, for its SDKs and for load generators.

What that API has no words for (scene, cameras, path, quality, deadline_s ...) stands beside its fields, as SDKs send
`extra_body`, or in `extra_body`, `extra_params` or `metadata` as an object or as its JSON.

    queued -> queued      previewed, refining -> in_progress      completed -> completed      all other ends -> failed
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParam
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile

from sphinx_nvs.engine.types.jobs import JobRow, JobState
from sphinx_nvs.errors import InputError
from sphinx_nvs.server.api.openapi import binary, problems
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.api.requests import VideoRequest, ViewRequest
from sphinx_nvs.server.api.responses import progress_of
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.auth import CallerDep, ContextDep, own_job
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.files import AGAIN, artifact_response
from sphinx_nvs.server.routes.results import video_response
from sphinx_nvs.server.routes.views import IdempotencyKey
from sphinx_nvs.server.submission import accepted

router = APIRouter(prefix="/v1/videos", tags=["videos (OpenAI)"])

VideoId = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Of the video: the view's id.")]
_STATUS = {
    JobState.QUEUED: "queued",
    JobState.PREVIEWED: "in_progress",
    JobState.REFINING: "in_progress",
    JobState.COMPLETED: "completed",
}
_T = TypeVar("_T", bound=BaseModel)
_NESTED = ("extra_body", "extra_params", "metadata")
_JSON_FIELDS = ("cameras", "path")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"$ref": "#/components/schemas/VideoRequest"}}
            for kind in ("application/json", "multipart/form-data")
        },
    }
}


class VideoError(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class Video(BaseModel):
    """A view as a video of OpenAI's API."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(ge=0, le=100, description="Per cent.")
    created_at: int = Field(description="Epoch seconds.")
    completed_at: int | None
    expires_at: int | None
    size: str = Field(description="WIDTHxHEIGHT, pixels.")
    seconds: str = Field(description="Length of the video.")
    quality: str = Field(default="standard", description="A word of that API; the number is in the view.")
    remixed_from_video_id: str | None = None
    prompt: str | None = None
    error: VideoError | None


class VideoPage(BaseModel):
    """Videos, newest first."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    """What became of a request to delete."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = Field(description="Whether it was ended, or removed; false if it was completed just now.")


@router.post(
    "",
    operation_id="create_video",
    summary="Ask for a video",
    openapi_extra=_BODY,
    responses=problems(403, 404, 413, 415, 507),
)
async def create_video(
    request: Request, caller: CallerDep, context: ContextDep, idempotency_key: IdempotencyKey = None
) -> Video:
    """As `POST /v1/views`, in the words of OpenAI's API; without `scene`, of the scene `demo`."""
    asked = _valid(VideoRequest, await _body(request))
    job = await accepted(context, caller, _valid(ViewRequest, _view_fields(asked)), idempotency_key)
    return await _video(context, job)


@router.get("", operation_id="list_videos", summary="List videos", responses=problems(404))
async def list_videos(
    caller: CallerDep,
    context: ContextDep,
    after: Annotated[
        str | None, Query(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Id of the last video of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Most videos of a page.")] = 20,
    order: Annotated[Literal["desc"], Query(description="Newest first is all there is.")] = "desc",
) -> VideoPage:
    """Your videos."""
    if after is not None:
        await own_job(context, caller, after)
    rows = await context.backend.jobs(key_id=caller.key_id, after=after, limit=limit + 1)
    videos = [await _video(context, row) for row in rows[:limit]]
    ids = [video.id for video in videos]
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    return VideoPage(data=videos, first_id=first, last_id=last, has_more=len(rows) > limit)


@router.get("/{video_id}", operation_id="get_video", summary="A video", responses=problems(404))
async def get_video(video_id: VideoId, caller: CallerDep, context: ContextDep) -> Video:
    """How far it is."""
    return await _video(context, await own_job(context, caller, video_id))


@router.delete(
    "/{video_id}", operation_id="delete_video", summary="Cancel or delete a video", responses=problems(403, 404, 507)
)
async def delete_video(video_id: VideoId, caller: CallerDep, context: ContextDep) -> VideoDeleted:
    """Ends it; one that has ended already is removed, and its files with it."""
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
    summary="The file",
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
    """The video as mp4, once it is completed."""
    job = await own_job(context, caller, video_id)
    if variant == "thumbnail":
        level = "final" if job.level == "final" else "preview"
        digest = await context.backend.frame(video_id, 0, level)
        if digest is None:
            raise ProblemError(409, "No frame is there yet.", headers={"Retry-After": "1"})
        return await artifact_response(context, request, digest, media_type="image/png", cache=AGAIN)
    if not job.state.is_final:
        raise ProblemError(409, "The video is not completed yet.", headers={"Retry-After": "1"})
    return await video_response(context, job, request)


async def _video(context: Context, job: JobRow) -> Video:
    """A job in that API's words."""
    spec, status = job.spec, _STATUS.get(job.state, "failed")
    error = VideoError(code=job.state.value, message=scrub(job.reason) or f"The view was {job.state.value}.")
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
    )


async def _body(request: Request) -> dict[str, Any]:
    """The fields of a request, however it is encoded."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            data = await request.json()
        except (ValueError, RecursionError) as error:
            raise ProblemError(400, "body: it is no JSON; send a JSON object.") from error
        if not isinstance(data, dict):
            raise ProblemError(422, "body: it is no object; send a JSON object.")
        return data
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return await _form(request)
    raise ProblemError(415, "Send application/json or multipart/form-data.")


async def _form(request: Request) -> dict[str, Any]:
    """The fields of a form; photos have no cameras and are of no use here."""
    try:
        form = await request.form(max_files=4, max_fields=100, max_part_size=4 << 20)
    except (ValueError, LookupError, TypeError) as error:
        raise ProblemError(400, "The form cannot be read; send multipart/form-data with a boundary.") from error
    try:
        fields = dict(form)
        files = [name for name, value in fields.items() if isinstance(value, UploadFile)]
        if files:
            found = f"{files[0][:60]!a} is a file, whose camera nobody knows"
            raise InputError("form", found, "upload photos with cameras to /v1/scenes, and name the scene here")
        return fields
    finally:
        await form.close()


def _view_fields(asked: VideoRequest) -> dict[str, Any]:
    """What of a request means something to `POST /v1/views`."""
    given: dict[str, Any] = dict(asked.model_extra or {})
    for name in _NESTED:
        given |= _object(getattr(asked, name), name)
    fields = {name: given[name] for name in ViewRequest.model_fields if given.get(name) not in (None, "")}
    for name in _JSON_FIELDS:
        if isinstance(fields.get(name), str) and fields[name].lstrip().startswith("{"):
            fields[name] = _object(fields[name], name)
    if isinstance(fields.get("quality"), str) and not fields["quality"].replace(".", "", 1).isdecimal():
        del fields["quality"]  # "standard" and "hd" are that API's words
    fields.setdefault("scene", "demo")
    if asked.size is not None:
        fields["size"] = asked.size
    elif "width" in given and "height" in given:
        fields.setdefault("size", f"{given['width']}x{given['height']}")
    if asked.seconds not in (None, "") and "num_frames" not in fields:
        fields["num_frames"] = _frames(asked.seconds, fields.get("fps", 24.0))
    return fields


def _frames(seconds: object, fps: object) -> int:
    """Frames of so many seconds."""
    try:
        return max(1, round(float(seconds) * float(fps)))  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError("seconds", f"it is {ascii(seconds)[:60]}", "give a number of seconds") from error


def _object(value: object, where: str) -> Mapping[str, Any]:
    """An object, or one as JSON; nothing is an empty one."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InputError(where, "it is no JSON", "send an object") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(where, f"it is a {type(value).__name__}", "send an object")
    return value


def _valid(model: type[_T], fields: Mapping[str, Any]) -> _T:
    """Checked fields."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise RequestValidationError(found) from error
