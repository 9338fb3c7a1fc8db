"""The page at `/`: built from `web/` into `server/page/`, served with a policy that lets it load nothing else."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParam
from starlette.concurrency import run_in_threadpool

from sphinx_nvs.server.api.problems import ProblemError

PAGE = Path(__file__).parents[1] / "page"
"""Folder of the built page; package data."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # Frames are fetched with the API key, and then shown and saved as blobs.
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy of the page: scripts, styles and requests of this server only, and nothing inline.

The live session's WebSocket has the page's own origin, which 'self' covers.
"""

ASSET_CACHE = "public, max-age=31536000, immutable"
"""Cache-Control of the page's parts, whose names hold a digest of their content."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """A file of the page.

    Args:
        content: its bytes.
        packed: the same, compressed.
        tag: its entity tag.
        media_type: value of Content-Type.
    """

    content: bytes
    packed: bytes
    tag: str
    media_type: str


@cache
def page_files() -> dict[str, PageFile]:
    """Returns the page's files by their path in its folder; they do not change while a server runs."""
    paths = (path for path in PAGE.rglob("*") if path.suffix in _TYPES)
    return {path.relative_to(PAGE).as_posix(): _read(path) for path in paths}


@router.head("/")
@router.get("/")
async def get_page(request: Request) -> Response:
    """Returns the page."""
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    return await _response(request, "index.html", headers)


@router.head("/assets/{name}")
@router.get("/assets/{name}")
async def get_asset(request: Request, name: Annotated[str, PathParam(max_length=200)]) -> Response:
    """Returns a script, style or image of the page."""
    return await _response(request, f"assets/{name}", {"Cache-Control": ASSET_CACHE})


async def _response(request: Request, name: str, headers: dict[str, str]) -> Response:
    """Returns a file, compressed if the client takes that, or 304 if it has it."""
    # In a thread: the first request reads and compresses all of them.
    file = (await run_in_threadpool(page_files)).get(name)
    if file is None:
        raise ProblemError(404, "The page has no such part; reload it.")
    headers = {**headers, "ETag": file.tag, "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.packed, headers=headers, media_type=file.media_type)
    return Response(file.content, headers=headers, media_type=file.media_type)


def _read(path: Path) -> PageFile:
    """Reads a file."""
    content = path.read_bytes()
    return PageFile(
        content=content,
        packed=gzip.compress(content, mtime=0),
        tag=f'W/"{hashlib.sha256(content).hexdigest()[:32]}"',
        media_type=_TYPES[path.suffix],
    )
