"""`WS /v1/scenes/{id}/live`: a scene as a camera sees it, while the camera moves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, WebSocket

from sphinx_nvs.server.api.problems import ProblemError, problem_response
from sphinx_nvs.server.auth import Caller, own_ready_scene
from sphinx_nvs.server.context import Context, context_of
from sphinx_nvs.server.live_socket import SUBPROTOCOL, LiveSocket
from sphinx_nvs.server.routes.parameters import SceneId

router = APIRouter(prefix="/v1/scenes", tags=["scenes"])


@router.websocket("/{scene_id}/live")
async def live(socket: WebSocket, scene_id: SceneId, context: Annotated[Context, Depends(context_of)]) -> None:
    """Shows a scene while its camera moves, and refines the frame where it rests; see docs/reference/live.md."""
    caller = socket.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    try:
        context.check_open()
        scene = await own_ready_scene(context, caller, scene_id)
        with context.live_sessions.counted(caller.name, caller.limits.live_sessions):
            await context.backend.library.keep_scene(scene.id, ttl_s=context.config.scene_ttl_s)
            await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
            await LiveSocket(socket, context, caller, scene, context.backend.config.size_multiple).serve()
    except ProblemError as problem:
        # Only before the connection is accepted: after that, mistakes are messages.
        await problem_response(socket.scope, problem)(socket.scope, socket.receive, socket.send)
