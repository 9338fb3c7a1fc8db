"""A scene as clients see it, once or whenever the search for its cameras has come further."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from sse_starlette import ServerSentEvent
from starlette.responses import Response

from sphinx_nvs.engine.store.row_types import SceneRow, SceneState
from sphinx_nvs.server.api.responses import PosingResponse, Scene
from sphinx_nvs.server.auth import Caller, may_stay
from sphinx_nvs.server.context import STREAM_CHECK_S, Context
from sphinx_nvs.server.scenes.plain_photos import POINTS
from sphinx_nvs.server.scenes.posing_jobs import PosingProgress
from sphinx_nvs.server.sse import counted_stream


def scene_response(context: Context, row: SceneRow) -> Scene:
    """Returns a scene with its progress."""
    if row.state is not SceneState.POSING:
        scene = Scene.of(row)
        if points_file(row).is_file():
            scene.links["points"] = f"/v1/scenes/{row.id}/{POINTS}"
        return scene
    now = context.posing.progress(row.id) or PosingProgress()
    return Scene.of(row, PosingResponse(stage=now.stage, progress=now.share, left_s=now.left_s))


def points_file(row: SceneRow) -> Path:
    """Returns the file of a scene's points, which exists if its cameras were found here."""
    return Path(row.path) / POINTS


def scene_stream(context: Context, caller: Caller, scene: SceneRow) -> Response:
    """Returns the stream of a scene's states, whose last is `ready` or `failed`."""
    return counted_stream(context, caller, _states(context, caller, scene.id))


async def _states(context: Context, caller: Caller, scene_id: str) -> AsyncIterator[ServerSentEvent]:
    """Yields the scene at first and after each change, while its caller may see it."""
    sent = None
    while await may_stay(context, caller):
        row = await context.backend.library.scene(scene_id)
        if row is None:
            return
        # Its expiry is no news.
        scene = scene_response(context, replace(row, expires_s=None))
        if scene != sent:
            sent = scene
            yield ServerSentEvent(data=scene_response(context, row).model_dump_json(), event=scene.status.value)
        if row.state is not SceneState.POSING:
            return
        await context.posing.change(STREAM_CHECK_S)
