"""Stored files as responses, with entity tags, ranges and 304 for what the client already has."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request
from starlette.responses import FileResponse, Response

from sphinx_nvs.engine.artifacts import DamagedError
from sphinx_nvs.engine.types.jobs import JobRow
from sphinx_nvs.errors import InputError
from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.context import Context

IMMUTABLE = "private, max-age=31536000, immutable"
"""Cache-Control of a file that never changes under its URL."""

REVALIDATE = "private, no-cache"
"""Cache-Control of a file that may change; its entity tag tells."""


async def artifact_response(
    context: Context,
    request: Request,
    job: JobRow,
    digest: str,
    *,
    media_type: str,
    cache: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Returns an artifact.

    Args:
        context: gives access to the artifacts.
        request: its headers say which range is wanted and which version the client has.
        job: the job whose artifact it is.
        digest: digest of the artifact, which is its entity tag.
        media_type: media type of its bytes.
        cache: value of Cache-Control.
        headers: further response headers.

    Raises:
        ProblemError: see `lost_file`.
    """
    try:
        path = await context.backend.library.file(digest)
    except (InputError, DamagedError) as error:
        raise await lost_file(context, job) from error
    tagged = {**(headers or {}), "ETag": f'"{digest}"', "Cache-Control": cache}
    return await tagged_response(request, path, digest, media_type=media_type, headers=tagged)


async def lost_file(context: Context, job: JobRow) -> ProblemError:
    """Returns the error for a missing or damaged file: 503 while it is made again, 404 if it cannot be.

    Raises:
        RefusedError: the queue is full: it is not made again now.
    """
    if await context.backend.repair(job.id):
        detail = "The file was damaged and is being made again; retry in a moment."
        return ProblemError(503, detail, headers=retry_after(2))
    return ProblemError(404, "The file is missing or was damaged, and cannot be made again; create the job again.")


async def tagged_response(
    request: Request, path: Path, tag: str, *, media_type: str, headers: Mapping[str, str]
) -> Response:
    """Returns a file, or 304 if the client has it.

    Raises:
        ProblemError: 404 if the file is missing.
    """
    # First: a client that has the file costs no more than this comparison.
    if _matches(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=dict(headers))
    try:
        stat = await asyncio.to_thread(path.stat)
    except OSError as error:
        raise ProblemError(404, "The file is missing.") from error
    return FileResponse(path, headers=dict(headers), media_type=media_type, stat_result=stat)


async def video_response(context: Context, job: JobRow, request: Request) -> Response:
    """Returns a job's video.

    Raises:
        ProblemError: 409 while there is none, 404 if there will be none; see `lost_file`, too.
    """
    try:
        digest = await context.backend.video(job.id)
    except DamagedError as error:
        raise await lost_file(context, job) from error
    if digest is None:
        raise missing_result(job, "the video")
    cache = IMMUTABLE if job.state.is_final else REVALIDATE
    headers = {"X-Level": job.level}
    return await artifact_response(context, request, job, digest, media_type="video/mp4", cache=cache, headers=headers)


def missing_result(job: JobRow, what: str) -> ProblemError:
    """Returns the error for a missing result: 409 while it is being made, 404 if it will never exist."""
    if job.state.is_final:
        return ProblemError(404, f"There is no {what.removeprefix('the ')}: the job ended as {job.state.value}.")
    return ProblemError(409, f"{what.capitalize()} is not ready yet.", headers=retry_after(1))


def _matches(if_none_match: str, tag: str) -> bool:
    """Returns whether the header If-None-Match lists this tag."""
    given = (one.strip().removeprefix("W/").strip('"') for one in if_none_match.split(","))
    return any(one in (tag, "*") for one in given)
