"""`/v1/views/{id}/...`: what came of a view: plan, frames, video, cameras."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParam
from starlette.concurrency import run_in_threadpool

from sphinx_nvs.engine.types.jobs import JobRow
from sphinx_nvs.engine.types.validation import cameras_of
from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.transforms import transforms_from
from sphinx_nvs.scene.world import world_from
from sphinx_nvs.server.api.openapi import binary, problems
from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.api.responses import CamerasAnswer, PlanAnswer, links_of
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.auth import CallerDep, ContextDep, own_job
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.files import AGAIN, FOREVER, artifact_response
from sphinx_nvs.server.plan_image import draw_plan, unit_of
from sphinx_nvs.server.routes.views import ViewId

router = APIRouter(prefix="/v1/views/{view_id}", tags=["results"])

FrameNumber = Annotated[int, Query(ge=0, le=100_000, description="Which frame the picture shows, from 0.")]
_PICTURE = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    "/plan",
    operation_id="get_view_plan",
    summary="What is computed, and why",
    response_model=PlanAnswer,
    responses={
        200: {"description": "The plan; with `Accept: image/png`, as a picture.", "content": _PICTURE},
        **problems(404, 409),
    },
)
async def get_view_plan(
    view_id: ViewId, request: Request, caller: CallerDep, context: ContextDep, frame: FrameNumber = 0
) -> PlanAnswer | Response:
    """The plan of every unit so far: which share of full diffusion is computed, at which predicted quality."""
    job = await own_job(context, caller, view_id)
    if _wants_picture(request.headers.get("accept", "")):
        return await _picture(context, job, frame)
    plans = [_told(plan) for plan in await context.backend.plan(view_id)]
    return PlanAnswer(id=view_id, units=plans, picture=f"{links_of(view_id)['plan']}.png")


@router.head("/plan.png", include_in_schema=False)
@router.get(
    "/plan.png",
    operation_id="get_view_plan_picture",
    summary="The plan of a frame as a picture",
    response_class=Response,
    responses={
        200: {"description": "The frame, tinted where it is refined.", "content": _PICTURE},
        **problems(404, 409),
    },
)
async def get_view_plan_picture(
    view_id: ViewId, caller: CallerDep, context: ContextDep, frame: FrameNumber = 0
) -> Response:
    """One frame's preview: grey where it is kept, bright where it is refined from an early step on."""
    return await _picture(context, await own_job(context, caller, view_id), frame)


@router.head("/frames/{index}", include_in_schema=False)
@router.get(
    "/frames/{index}",
    operation_id="get_view_frame",
    summary="One frame",
    response_class=Response,
    responses={**binary("image/png", "The frame."), **problems(404, 409)},
)
async def get_view_frame(
    view_id: ViewId,
    index: Annotated[int, PathParam(ge=0, le=100_000, description="Of the frame, from 0.")],
    request: Request,
    caller: CallerDep,
    context: ContextDep,
    level: Annotated[
        Literal["preview", "final"], Query(description="As regression rendered it, or refined.")
    ] = "final",
) -> Response:
    """A frame as PNG; what is there once never changes."""
    job = await own_job(context, caller, view_id)
    if index >= job.spec.num_views:
        raise ProblemError(404, f"The view has frames 0 to {job.spec.num_views - 1}.")
    digest = await context.backend.frame(view_id, index, level)
    if digest is None:
        raise _not_there(job, f"frame {index} at level {level}")
    return await artifact_response(context, request, digest, media_type="image/png", cache=FOREVER)


@router.head("/content", include_in_schema=False)
@router.get(
    "/content",
    operation_id="get_view_content",
    summary="The video",
    response_class=Response,
    responses={**binary("video/mp4", "The video.", has_ranges=True), **problems(404, 409, 416)},
)
async def get_view_content(view_id: ViewId, request: Request, caller: CallerDep, context: ContextDep) -> Response:
    """The frames as mp4, of the best level that all of them have: header `X-Level`. Ranges are understood."""
    return await video_response(context, await own_job(context, caller, view_id), request)


@router.get(
    "/cameras",
    operation_id="get_view_cameras",
    summary="The frames' cameras",
    responses=problems(404),
    response_model_exclude_none=True,
)
async def get_view_cameras(view_id: ViewId, caller: CallerDep, context: ContextDep) -> CamerasAnswer:
    """As a nerfstudio transforms.json, so that frames and cameras together train a scene."""
    job = await own_job(context, caller, view_id)
    names = [f"frames/{index}" for index in range(job.spec.num_views)]
    return CamerasAnswer(**transforms_from(cameras_of(job.spec), names, world_from(job.spec.world)))


async def video_response(context: Context, job: JobRow, request: Request) -> Response:
    """A job's video.

    Raises:
        ProblemError: 409, there is none yet; 404, there will be none.
    """
    digest = await context.backend.video(job.id)
    if digest is None:
        raise _not_there(job, "the video")
    cache = FOREVER if job.state.is_final else AGAIN
    headers = {"X-Level": job.level}
    return await artifact_response(context, request, digest, media_type="video/mp4", cache=cache, headers=headers)


def _not_there(job: JobRow, what: str) -> ProblemError:
    """What to say while something is missing, and when it will never come."""
    if job.state.is_final:
        return ProblemError(404, f"There is no {what.removeprefix('the ')}: the view ended as {job.state.value}.")
    return ProblemError(409, f"{what.capitalize()} is not there yet.", headers=retry_after(1))


def _wants_picture(accept: str) -> bool:
    """Whether a picture is asked for rather than JSON."""
    return "image/png" in accept and "json" not in accept


def _told(plan: dict[str, Any]) -> dict[str, Any]:
    """A unit's plan for clients."""
    return {key: scrub(value) if isinstance(value, str) else value for key, value in plan.items() if key != "file"}


async def _picture(context: Context, job: JobRow, frame: int) -> Response:
    """The plan of one frame as a picture."""
    if frame >= job.spec.num_views:
        raise ProblemError(404, f"The view has frames 0 to {job.spec.num_views - 1}.")
    plan = unit_of(await context.backend.plan(job.id), frame)
    preview = await context.backend.frame(job.id, frame, "preview")
    if plan is None or preview is None:
        raise _not_there(job, f"the plan of frame {frame}")
    try:
        files = [await context.backend.library.file(digest) for digest in (plan["file"], preview)]
        picture = await run_in_threadpool(
            draw_plan, *files, plan["targets"].index(frame), context.backend.config.size_multiple
        )
    except InputError as error:
        raise ProblemError(404, "The plan's file is gone.") from error
    return Response(picture, media_type="image/png", headers={"Cache-Control": AGAIN})
