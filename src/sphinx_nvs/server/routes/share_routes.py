"""Links to finished videos: anyone with the link sees the video and nothing else, without an API key."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParam
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from starlette.responses import HTMLResponse

from sphinx_nvs.engine.types.jobs import JobRow
from sphinx_nvs.server.api.openapi import problems
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.api.responses import ShareResponse
from sphinx_nvs.server.auth import CallerDep, ContextDep, own_job
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.files import missing_result, video_response
from sphinx_nvs.server.routes.parameters import JobId

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])
public = APIRouter(prefix="/shared", include_in_schema=False)

Token = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9_-]{16,64}$")]

_TEMPLATES = Environment(loader=PackageLoader("sphinx_nvs.server"), autoescape=True)
_STYLE = _TEMPLATES.get_template("shared.css").render()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; media-src 'self'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}


@router.post(
    "/share",
    status_code=201,
    operation_id="share_job",
    summary="Share the video",
    responses=problems(404, 409),
)
async def share_job(job_id: JobId, caller: CallerDep, context: ContextDep) -> ShareResponse:
    """Makes a link to the finished video for people without a key; an earlier link to it ends.

    The link shows the video and nothing else. It ends with the job, or by DELETE.
    """
    job = await own_job(context, caller, job_id)
    if job.state.is_final and job.level == "none":
        raise missing_result(job, "the video")
    if not job.state.is_final:
        raise ProblemError(409, "The job is not finished; share its video once it is.")
    token = await context.backend.library.share_job(job_id)
    if token is None:
        raise missing_result(job, "the video")
    return ShareResponse(id=job_id, url=f"/shared/{token}", video=f"/shared/{token}/video.mp4")


@router.delete(
    "/share", status_code=204, operation_id="unshare_job", summary="End the link to the video", responses=problems(404)
)
async def unshare_job(job_id: JobId, caller: CallerDep, context: ContextDep) -> Response:
    """Ends the link to the video; 204 also if there is none."""
    await own_job(context, caller, job_id)
    await context.backend.library.unshare_job(job_id)
    return Response(status_code=204)


@public.get("/{token}")
async def get_shared_page(token: Token, context: ContextDep) -> HTMLResponse:
    """Returns a page that plays the video."""
    spec = (await _shared(context, token)).spec
    page = _TEMPLATES.get_template("shared.html").render(
        token=token, width=spec.width, height=spec.height, frames=spec.num_views, style=Markup(_STYLE)
    )
    return HTMLResponse(page, headers=_HEADERS)


@public.head("/{token}/video.mp4")
@public.get("/{token}/video.mp4")
async def get_shared_video(token: Token, request: Request, context: ContextDep) -> Response:
    """Returns the video, with ranges."""
    return await video_response(context, await _shared(context, token), request)


async def _shared(context: Context, token: str) -> JobRow:
    """Returns the job of a link.

    Raises:
        ProblemError: 404 if there is none (any more).
    """
    job = await context.backend.library.shared_job(token)
    if job is None:
        raise ProblemError(404, "There is nothing under this link, or not any more.")
    return job
