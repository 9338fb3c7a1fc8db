"""`/v1/scenes`: photos, with cameras or without."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParam
from starlette.concurrency import run_in_threadpool

from sphinx_nvs.engine.catalog import discard_folder
from sphinx_nvs.engine.store.row_types import SceneRow, SceneState
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.server.api.openapi import binary, problems
from sphinx_nvs.server.api.problems import ProblemError, from_input_error
from sphinx_nvs.server.api.responses import Scene, ScenePage
from sphinx_nvs.server.auth import Caller, CallerDep, ContextDep, own_ready_scene, own_scene
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.files import IMMUTABLE, tagged_response
from sphinx_nvs.server.limits import UploadBudget, check_running, check_storage
from sphinx_nvs.server.routes.parameters import After, Limit, SceneId
from sphinx_nvs.server.scene_stream import points_file, scene_response, scene_stream
from sphinx_nvs.server.scenes import limited_process
from sphinx_nvs.server.scenes.ingest import SceneRequest
from sphinx_nvs.server.scenes.plain_photos import INCOMING, PlainUpload, plain_upload, write_upload
from sphinx_nvs.server.scenes.uploads import FORM, receive
from sphinx_nvs.server.server_config import UploadLimits

router = APIRouter(prefix="/v1/scenes", tags=["scenes"])

PLY = "application/octet-stream"
"""Media type of a PLY file, which has none of its own."""

_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": [state.value for state in SceneState]},
        "data": {"type": "string", "description": "JSON: the scene."},
    },
}


@router.post(
    "",
    status_code=201,
    operation_id="create_scene",
    summary="Upload a scene",
    openapi_extra=FORM,
    responses={
        202: {"model": Scene, "description": "The cameras of the photos are being found."},
        **problems(403, 408, 413, 415, 507),
    },
)
async def create_scene(request: Request, response: Response, caller: CallerDep, context: ContextDep) -> Scene:
    """Stores photos and their cameras, sent as a form or as a zip archive.

    Cameras are a nerfstudio `transforms.json` or, in an archive, a COLMAP model. Photos are stored as PNG, undistorted
    and without metadata; `warnings` says what may lower the quality of frames.

    The cameras of photos alone, or of a video, are found after the response, which is 202 with the status `posing`; the
    scene can be used once that is `ready`. It outlasts restarts of the server; deleting the scene cancels it.
    """
    context.check_open()
    usage = await context.backend.library.usage(caller.key_id)
    size = _body_size(request, context.config.upload)
    with context.uploads.counted(caller.key_id, size, usage, caller.limits) as budget:
        row = await _store(request, caller, context, budget)
    response.headers["Location"] = f"/v1/scenes/{row.id}"
    if row.state is SceneState.POSING:
        response.status_code = 202
    return scene_response(context, row)


@router.get("", operation_id="list_scenes", summary="List scenes", responses=problems(404))
async def list_scenes(caller: CallerDep, context: ContextDep, after: After = None, limit: Limit = 20) -> ScenePage:
    """Lists the caller's scenes, newest first."""
    if after is not None:
        await own_scene(context, caller, after)
    rows = await context.backend.library.scenes(key_id=caller.key_id, after=after, limit=limit + 1)
    has_more = len(rows) > limit
    following = f"/v1/scenes?after={rows[limit - 1].id}&limit={limit}" if has_more else None
    return ScenePage(data=[scene_response(context, row) for row in rows[:limit]], has_more=has_more, next=following)


@router.get("/{scene_id}", operation_id="get_scene", summary="Get a scene", responses=problems(404))
async def get_scene(scene_id: SceneId, caller: CallerDep, context: ContextDep) -> Scene:
    """Returns a scene."""
    return scene_response(context, await own_scene(context, caller, scene_id))


@router.get(
    "/{scene_id}/events",
    operation_id="stream_scene_events",
    summary="Stream a scene's progress",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events; each is the scene, under the name of its status. "
            "The last is ready or failed.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        **problems(404),
    },
)
async def stream_scene_events(scene_id: SceneId, caller: CallerDep, context: ContextDep) -> Response:
    """Streams the scene whenever the search for its cameras has come further, from its present state on."""
    scene = await own_scene(context, caller, scene_id)
    return scene_stream(context, caller, scene)


@router.delete(
    "/{scene_id}",
    status_code=204,
    operation_id="delete_scene",
    summary="Delete a scene",
    responses=problems(403, 404, 409, 507),
)
async def delete_scene(scene_id: SceneId, caller: CallerDep, context: ContextDep) -> Response:
    """Deletes a scene and its photos, unless an unfinished job needs them. Finished jobs are kept.

    The search for the cameras of its photos ends.
    """
    scene = await own_scene(context, caller, scene_id)
    if scene.key_id != caller.key_id:
        raise ProblemError(403, "This scene is shared by all callers and cannot be deleted.")
    await context.posing.cancel(scene_id)
    try:
        await context.backend.library.delete_scene(scene_id)
    except InputError as error:
        raise from_input_error(error, 409) from error
    return Response(status_code=204)


@router.get(
    "/{scene_id}/cameras",
    operation_id="get_scene_cameras",
    summary="Get a scene's cameras",
    responses=problems(404, 409),
)
async def get_scene_cameras(scene_id: SceneId, caller: CallerDep, context: ContextDep) -> JSONObject:
    """Returns the photos' cameras as a nerfstudio transforms.json, each with its own `w` and `h`."""
    scene = await own_ready_scene(context, caller, scene_id)
    try:
        return dict(json.loads(await run_in_threadpool((Path(scene.path) / "transforms.json").read_bytes)))
    except (OSError, ValueError, TypeError) as error:
        raise ProblemError(404, "The scene's cameras are missing or damaged; upload the scene again.") from error


@router.head("/{scene_id}/photos/{index}", include_in_schema=False)
@router.get(
    "/{scene_id}/photos/{index}",
    operation_id="get_scene_photo",
    summary="Get a photo",
    response_class=Response,
    responses={**binary("image/png", "The photo as stored."), **problems(404, 409)},
)
async def get_scene_photo(
    scene_id: SceneId,
    index: Annotated[int, PathParam(ge=0, le=100_000, description="Number of the photo, from 0.")],
    request: Request,
    caller: CallerDep,
    context: ContextDep,
) -> Response:
    """Returns a photo as PNG."""
    scene = await own_ready_scene(context, caller, scene_id)
    if index >= scene.num_views:
        raise ProblemError(404, f"The scene has photos 0 to {scene.num_views - 1}.")
    tag = f"{scene.id}-{index}"
    headers = {"ETag": f'"{tag}"', "Cache-Control": IMMUTABLE}
    path = Path(scene.path) / f"{index:03d}.png"
    return await tagged_response(request, path, tag, media_type="image/png", headers=headers)


@router.head("/{scene_id}/points.ply", include_in_schema=False)
@router.get(
    "/{scene_id}/points.ply",
    operation_id="get_scene_points",
    summary="Get a scene's points",
    response_class=Response,
    responses={**binary(PLY, "The points, binary PLY with colours."), **problems(404, 409)},
)
async def get_scene_points(scene_id: SceneId, request: Request, caller: CallerDep, context: ContextDep) -> Response:
    """Returns the sparse points that were found with the photos' cameras, in the coordinates of `/cameras`.

    Scenes that were sent with cameras have none; of others, `links` names `points`.
    """
    scene = await own_ready_scene(context, caller, scene_id)
    path, tag = points_file(scene), f"{scene.id}-points"
    if not await run_in_threadpool(path.is_file):
        raise ProblemError(404, "This scene has no points: its cameras came with its photos, and were not found here.")
    headers = {"ETag": f'"{tag}"', "Cache-Control": IMMUTABLE}
    return await tagged_response(request, path, tag, media_type=PLY, headers=headers)


def _body_size(request: Request, limits: UploadLimits) -> int:
    """Returns the declared size of a request's body in bytes, or the largest permitted one."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() and len(declared) < 16 else limits.body_bytes


async def _store(request: Request, caller: Caller, context: Context, budget: UploadBudget) -> SceneRow:
    """Receives and stores a scene; removes its files if anything fails."""
    scene_id, folder = await run_in_threadpool(context.backend.library.new_scene_folder)
    try:
        # The first upload of a server's life waits for its body and for this at the same time.
        await run_in_threadpool(limited_process.prepare)
        options = await receive(request, _incoming(folder), context.config.upload, budget)
        plain = await run_in_threadpool(plain_upload, folder / INCOMING, options)
        if plain is not None:
            return await _pose(context, caller, scene_id, folder, plain)
        return await _ingest(context, caller, scene_id, folder, options)
    except BaseException:
        await asyncio.shield(run_in_threadpool(discard_folder, folder))
        raise


def _incoming(folder: Path) -> Path:
    """Creates the folder for a scene's files as they were sent."""
    incoming = folder / INCOMING
    incoming.mkdir()
    return incoming


async def _ingest(context: Context, caller: Caller, scene_id: str, folder: Path, options: SceneRequest) -> SceneRow:
    """Converts the files that were sent, checks the quota, and adds the scene's row."""
    made = await context.ingest.make(caller.key_id, folder / INCOMING, folder, options)
    await run_in_threadpool(discard_folder, folder / INCOMING)
    row = SceneRow(
        id=scene_id,
        key_id=caller.key_id,
        path=str(folder),
        num_views=made.num_views,
        width=made.width,
        height=made.height,
        warnings=made.warnings,
        bytes=made.bytes,
    )
    return await _added(context, caller, row)


async def _pose(context: Context, caller: Caller, scene_id: str, folder: Path, plain: PlainUpload) -> SceneRow:
    """Adds the row of a scene whose cameras are found from now on."""
    await run_in_threadpool(write_upload, folder, plain)
    size = await run_in_threadpool(lambda: sum(path.stat().st_size for path in folder.rglob("*")))
    row = SceneRow(
        id=scene_id,
        key_id=caller.key_id,
        path=str(folder),
        num_views=0,
        width=0,
        height=0,
        bytes=size,
        state=SceneState.POSING,
    )
    check_running(await context.backend.library.usage(caller.key_id), caller.limits)
    row = await _added(context, caller, row)
    context.posing.start(context.backend.library, row)
    return row


async def _added(context: Context, caller: Caller, row: SceneRow) -> SceneRow:
    """Checks the quota, and adds a scene's row."""
    async with context.adding:
        check_storage(await context.backend.library.usage(caller.key_id), caller.limits, more_bytes=row.bytes)
        return await context.backend.library.add_scene(row, ttl_s=context.config.scene_ttl_s)
