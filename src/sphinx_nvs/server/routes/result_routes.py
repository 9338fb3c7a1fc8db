"""`/v1/jobs/{id}/...`: a job's results: plan, frames, video, cameras."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParam
from starlette.concurrency import run_in_threadpool

from sphinx_nvs.engine.artifacts import DamagedError
from sphinx_nvs.engine.types.job_validation import cameras_of
from sphinx_nvs.engine.types.jobs import JobRow
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.scene.transforms import transforms_from
from sphinx_nvs.scene.world_frame import world_from
from sphinx_nvs.server.api.openapi import binary, problems
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.api.responses import CamerasResponse, PlanResponse, links_of
from sphinx_nvs.server.api.scrubbing import scrub
from sphinx_nvs.server.auth import CallerDep, ContextDep, own_job
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.files import IMMUTABLE, REVALIDATE, artifact_response, lost_file, missing_result, video_response
from sphinx_nvs.server.plan_image import draw_plan, plan_of_frame
from sphinx_nvs.server.routes.parameters import FrameNumber, JobId

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"])

_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    "/plan",
    operation_id="get_job_plan",
    summary="Get the plan",
    response_model=PlanResponse,
    responses={
        200: {"description": "The plan; with `Accept: image/png`, as an image.", "content": _PNG},
        **problems(404, 409),
    },
)
async def get_job_plan(
    job_id: JobId, request: Request, caller: CallerDep, context: ContextDep, frame: FrameNumber = 0
) -> PlanResponse | Response:
    """Returns the plan of every unit so far: the share of full diffusion computed, and the predicted quality."""
    job = await own_job(context, caller, job_id)
    if _prefers_image(request.headers.get("accept", "")):
        return await _plan_image(context, job, frame)
    plans = [_public_plan(plan) for plan in await context.backend.plan(job_id)]
    return PlanResponse(id=job_id, units=plans, image=f"{links_of(job_id)['plan']}.png")


@router.head("/plan.png", include_in_schema=False)
@router.get(
    "/plan.png",
    operation_id="get_job_plan_image",
    summary="Get a frame's plan as an image",
    response_class=Response,
    responses={
        200: {"description": "The frame, tinted where it is refined.", "content": _PNG},
        **problems(404, 409),
    },
)
async def get_job_plan_image(job_id: JobId, caller: CallerDep, context: ContextDep, frame: FrameNumber = 0) -> Response:
    """Returns one frame's preview: grey where it is kept, brighter the earlier refinement starts."""
    return await _plan_image(context, await own_job(context, caller, job_id), frame)


@router.head("/frames/{index}", include_in_schema=False)
@router.get(
    "/frames/{index}",
    operation_id="get_job_frame",
    summary="Get a frame",
    response_class=Response,
    responses={**binary("image/png", "The frame."), **problems(404, 409)},
)
async def get_job_frame(
    job_id: JobId,
    index: Annotated[int, PathParam(ge=0, le=100_000, description="Number of the frame, from 0.")],
    request: Request,
    caller: CallerDep,
    context: ContextDep,
    level: Annotated[
        Literal["preview", "final"], Query(description="`preview`: rendered by the regressor; `final`: refined.")
    ] = "final",
) -> Response:
    """Returns a frame as PNG. A frame never changes once it exists."""
    job = await own_job(context, caller, job_id)
    if index >= job.spec.num_views:
        raise ProblemError(404, f"The job has frames 0 to {job.spec.num_views - 1}.")
    digest = await context.backend.frame(job_id, index, level)
    if digest is None:
        raise missing_result(job, f"frame {index} at level {level}")
    return await artifact_response(context, request, job, digest, media_type="image/png", cache=IMMUTABLE)


@router.head("/content", include_in_schema=False)
@router.get(
    "/content",
    operation_id="get_job_content",
    summary="Get the video",
    response_class=Response,
    responses={**binary("video/mp4", "The video.", has_ranges=True), **problems(404, 409, 416)},
)
async def get_job_content(job_id: JobId, request: Request, caller: CallerDep, context: ContextDep) -> Response:
    """Returns the frames as mp4, at the best level at which all exist (header `X-Level`). Supports ranges."""
    return await video_response(context, await own_job(context, caller, job_id), request)


@router.get(
    "/cameras",
    operation_id="get_job_cameras",
    summary="Get the frames' cameras",
    responses=problems(404),
    response_model_exclude_none=True,
)
async def get_job_cameras(job_id: JobId, caller: CallerDep, context: ContextDep) -> CamerasResponse:
    """Returns a nerfstudio transforms.json, so that frames and cameras together can train a scene."""
    job = await own_job(context, caller, job_id)
    names = [f"frames/{index}" for index in range(job.spec.num_views)]
    return CamerasResponse(**transforms_from(cameras_of(job.spec), names, world_from(job.spec.world)))


def _prefers_image(accept: str) -> bool:
    """Returns whether an Accept header asks for an image rather than JSON."""
    return "image/png" in accept and "json" not in accept


def _public_plan(plan: JSONObject) -> JSONObject:
    """Returns a unit's plan without file names and paths."""
    return {key: scrub(value) if isinstance(value, str) else value for key, value in plan.items() if key != "file"}


async def _plan_image(context: Context, job: JobRow, frame: int) -> Response:
    """Returns the plan of one frame as an image."""
    if frame >= job.spec.num_views:
        raise ProblemError(404, f"The job has frames 0 to {job.spec.num_views - 1}.")
    plan = plan_of_frame(await context.backend.plan(job.id), frame)
    preview = await context.backend.frame(job.id, frame, "preview")
    if plan is None or preview is None:
        raise missing_result(job, f"the plan of frame {frame}")
    try:
        plan_file, frame_file = [await context.backend.library.file(digest) for digest in (plan["file"], preview)]
        place, multiple = plan["targets"].index(frame), context.backend.config.size_multiple
        image = await run_in_threadpool(draw_plan, plan_file, frame_file, place, multiple)
    except (InputError, DamagedError) as error:
        raise await lost_file(context, job) from error
    return Response(image, media_type="image/png", headers={"Cache-Control": REVALIDATE})
