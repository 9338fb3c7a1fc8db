"""Bodies of `/v1/videos`, and how a request of OpenAI's video API becomes a `JobRequest`."""

from __future__ import annotations

import json
from typing import Literal, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile

from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.api.requests import JobRequest, VideoRequest

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"$ref": "#/components/schemas/VideoRequest"}}
            for kind in ("application/json", "multipart/form-data")
        },
    }
}
"""The request body in the OpenAPI document; `read_body` reads it, not FastAPI."""

IGNORED = (
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "true_cfg_scale",
    "boundary_ratio",
    "flow_shift",
    "user",
)
"""Fields of other video servers without a meaning here: they are accepted, ignored and named in `warnings`."""

QUALITY_WORDS = ("standard", "hd", "low", "medium", "high", "auto")
"""Values of `quality` in OpenAI's APIs, which are ignored; here it is a number."""

_JSON_FIELDS = ("cameras", "path")
_T = TypeVar("_T", bound=BaseModel)


class VideoError(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class Video(BaseModel):
    """A job as a video of OpenAI's API."""

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
    quality: str = Field(default="standard", description="Always `standard`; `GET /v1/jobs/{id}` has the number.")
    remixed_from_video_id: str | None = None
    prompt: str | None = None
    error: VideoError | None
    warnings: list[str] = Field(default=[], description="Fields of the request that were ignored.")


class VideoPage(BaseModel):
    """A page of videos, newest first."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    """Result of a request to delete a video."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = Field(description="Whether it was cancelled or deleted; false if it has just completed.")


async def read_body(request: Request) -> JSONObject:
    """Returns the fields of a request, sent as JSON or as a form.

    Raises:
        InputError: the form holds a file.
        ProblemError: 400 or 422 if the body cannot be read, 415 for another media type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            data = await request.json()
        except (ValueError, RecursionError) as error:
            raise ProblemError(400, "body: it is not valid JSON; send a JSON object.") from error
        if not isinstance(data, dict):
            raise ProblemError(422, "body: it is not a JSON object; send a JSON object.")
        return data
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return await _form(request)
    raise ProblemError(415, "Send application/json or multipart/form-data.")


def job_request(fields: JSONMapping, preset: str) -> tuple[JobRequest, list[str]]:
    """Translates a request of the video API.

    Args:
        fields: as `read_body` returns them.
        preset: the server's preset, the only model.

    Returns:
        The job's request, and a sentence for every field that is ignored.

    Raises:
        InputError: a field is unknown, or cannot be translated.
        RequestValidationError: a value is invalid.
    """
    video = _validated(VideoRequest, fields)
    given, warnings = _given(video)
    if video.prompt:
        warnings.append("prompt: ignored, scenes are not described in words here")
    if video.model not in (None, "", preset):
        warnings.append(f"model: {ascii(video.model)[:60]} is ignored, this server runs {preset}")
    for name in _JSON_FIELDS:
        if isinstance(given.get(name), str) and given[name].lstrip().startswith("{"):
            given[name] = _object(given[name], name)
    if given.get("quality") in QUALITY_WORDS:
        warnings.append(f"quality: {given.pop('quality')!r} is ignored, give a number from 0 to 1")
    if video.size is not None:
        given["size"] = video.size
    if video.seconds not in (None, "") and "num_frames" not in given:
        given["num_frames"] = _frames(video.seconds, given.get("fps", 24.0))
    # Clients of other video servers name no scene: theirs is the demo, so that a first request shows something.
    return _validated(JobRequest, {"scene": "demo", **given}), warnings


def _given(video: VideoRequest) -> tuple[JSONObject, list[str]]:
    """Returns the job's fields of a request, and a sentence for every other field that is ignored.

    `metadata` may hold any entries of the client's own, so unknown ones are ignored there and refused elsewhere.
    """
    fields: JSONObject = dict(video.model_extra or {})
    for name in ("extra_body", "extra_params"):
        fields |= _object(getattr(video, name), name)
    metadata = {name: value for name, value in _object(video.metadata, "metadata").items() if name not in fields}
    fields = {name: value for name, value in fields.items() if value not in (None, "")}
    sides = [fields.pop(name, None) for name in ("width", "height")]
    unknown = [name for name in fields if name not in JobRequest.model_fields and name not in IGNORED]
    if unknown:
        raise InputError(str(unknown[0])[:80], "there is no such field", "remove it or correct its name")
    known = {name: value for name, value in {**metadata, **fields}.items() if name in JobRequest.model_fields}
    ignored = [*(name for name in fields if name in IGNORED), *(f"metadata.{n}" for n in metadata if n not in known)]
    if sides != [None, None]:
        known.setdefault("size", _size(*sides))
    known = {name: value for name, value in known.items() if value not in (None, "")}
    return known, [f"{ascii(name)[1:-1][:80]}: ignored, it has no meaning here" for name in ignored]


def _size(width: object, height: object) -> str:
    """Returns WIDTHxHEIGHT from the fields `width` and `height`, which other video servers have."""
    if width is None or height is None:
        raise InputError("width", "it stands without height, or height without it", "give both, or size")
    return f"{width}x{height}"


async def _form(request: Request) -> JSONObject:
    """Returns the fields of a form; files are refused, because a photo without a camera cannot be used."""
    try:
        # A camera path is one part of the form and may exceed Starlette's 1 MiB.
        form = await request.form(max_files=4, max_fields=100, max_part_size=4 << 20)
    except (ValueError, LookupError, TypeError) as error:
        raise ProblemError(400, "The form cannot be read; send multipart/form-data with a boundary.") from error
    try:
        fields = dict(form)
        files = [name for name, value in fields.items() if isinstance(value, UploadFile)]
        if files:
            found = f"{files[0][:60]!a} is a file without a camera"
            raise InputError("form", found, "upload photos with cameras to /v1/scenes, and name the scene here")
        return fields
    finally:
        await form.close()


def _frames(seconds: object, fps: object) -> int:
    """Returns the number of frames of a video of this length."""
    try:
        return max(1, round(float(seconds) * float(fps)))  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError("seconds", f"it is {ascii(seconds)[:60]}", "give a number of seconds") from error


def _object(value: object, where: str) -> JSONMapping:
    """Returns an object that was sent as such or as its JSON; nothing is an empty one."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InputError(where, "it is not valid JSON", "send an object") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(where, f"it is a {type(value).__name__}", "send an object")
    return value


def _validated(model: type[_T], fields: JSONMapping) -> _T:
    """Validates fields as FastAPI validates a body."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise RequestValidationError(found) from error
