"""Artifacts as answers: with an entity tag, with ranges, and not at all if the client has them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request
from starlette.responses import FileResponse, Response

from sphinx_nvs.errors import InputError
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.context import Context

FOREVER = "private, max-age=31536000, immutable"
"""What never changes under its address."""

AGAIN = "private, no-cache"
"""What may change under its address, told by its tag."""


async def artifact_response(
    context: Context,
    request: Request,
    digest: str,
    *,
    media_type: str,
    cache: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An artifact as it is.

    Args:
        context: where it is.
        request: for what the client has and wants of it.
        digest: of the artifact.
        media_type: of its bytes.
        cache: how long the client may keep it.
        headers: to add.

    Raises:
        ProblemError: 404, its file is gone.
    """
    try:
        path = await context.backend.library.file(digest)
    except InputError as error:
        raise ProblemError(404, "The file is gone; ask for the view again.") from error
    tagged = {**(headers or {}), "ETag": f'"{digest}"', "Cache-Control": cache}
    return await tagged_response(request, path, digest, media_type=media_type, headers=tagged)


async def tagged_response(
    request: Request, path: Path, tag: str, *, media_type: str, headers: Mapping[str, str]
) -> Response:
    """A file, or 304 if the client has it."""
    if _has(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=dict(headers))
    try:
        stat = await asyncio.to_thread(path.stat)
    except OSError as error:
        raise ProblemError(404, "The file is gone.") from error
    return FileResponse(path, headers=dict(headers), media_type=media_type, stat_result=stat)


def _has(if_none_match: str, tag: str) -> bool:
    """Whether a client's list of tags holds this one."""
    given = (one.strip().removeprefix("W/").strip('"') for one in if_none_match.split(","))
    return any(one in (tag, "*") for one in given)
