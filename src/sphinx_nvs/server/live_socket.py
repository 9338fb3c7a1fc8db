"""The protocol of a live session on its WebSocket: cameras in, frames out. docs/reference/live.md describes it.

    client: {"type": "camera", "id": 7, "c2w": [...], "K": [...], "width": 256, "height": 192}
    server: {"type": "ready" | "waiting" | "refused" | "error", ...}, and frames: length, header, JPEG

One task receives messages, one understands the newest, one writes frames; the session ends when any of them does. A
client that sends faster than cameras are understood, or reads slower than frames are made, holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Literal

import anyio
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from sphinx_nvs.engine.live_desk import LiveFrame
from sphinx_nvs.engine.store.row_types import SceneRow
from sphinx_nvs.engine.types.live import LiveCamera
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.scene.camera_files import SceneCameras, targets_in
from sphinx_nvs.scene.capture import Capture, covering
from sphinx_nvs.server.api.problems import from_input_error
from sphinx_nvs.server.api.requests import Matrix3, Matrix4, Share, Strict
from sphinx_nvs.server.auth import Caller, may_stay
from sphinx_nvs.server.backend import LiveView
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.scenes.target_cameras import read_cameras

SUBPROTOCOL = "sphinx-live.v1"

MOST_SIDE = 512
"""Longer side of the largest live frame, pixels."""

SEND_S = 10.0
"""A client that reads nothing for this long is disconnected, seconds."""

POLL_S = 0.5
"""Interval at which a session without a frame checks its caller, and says what it waits for, seconds."""

STILL_QUALITY = 0.998
"""Of stills: a single view, which is looked at for longer than the frames of a video, is worth more than these."""

INTERVAL_S = 0.01
"""Least time between two messages that are received, seconds; more wait in the connection."""

PATIENCE_S = 1.0
"""Time after which a camera is understood though the one before it was not drawn, seconds."""

MOST_REFUSED = 20
"""Consecutive messages that may be refused before the session ends."""

Side = Annotated[int, Field(ge=8, le=MOST_SIDE)]


class CameraMessage(Strict):
    """A camera as a client sends it."""

    type: Literal["camera"]
    id: Annotated[int, Field(ge=0, le=2**53)] = 0
    c2w: Matrix4
    K: Matrix3
    width: Side
    height: Side
    quality: Share = STILL_QUALITY


class _Newest:
    """The newest message that was not taken."""

    def __init__(self) -> None:
        self._text: str | None = None
        self.is_used, self.is_drawn = False, asyncio.Event()
        self._filled = asyncio.Event()

    def put(self, text: str) -> None:
        """Replaces the message."""
        self._text = text
        self._filled.set()

    async def take(self) -> str:
        """The message, once there is one."""
        while self._text is None:
            self._filled.clear()
            await self._filled.wait()
        text, self._text, self.is_used = self._text, None, True
        return text


class LiveSocket:
    """Serves one session over one accepted WebSocket.

    Args:
        socket: the connection.
        context: settings.
        caller: whose session it is.
        scene: that is seen.
        least_side: of frames, pixels.
    """

    def __init__(self, socket: WebSocket, context: Context, caller: Caller, scene: SceneRow, least_side: int) -> None:
        self._socket, self._context, self._caller, self._scene = socket, context, caller, scene
        self._least_side = least_side

    async def serve(self) -> None:
        """Serves until the client leaves, is idle for too long, or may not stay."""
        capture = await run_in_threadpool(read_cameras, self._scene)
        session, newest = self._context.backend.live.open(self._scene.path, self._caller.key_id), _Newest()
        try:
            await self._send({"type": "ready", "scene": self._scene.id, "max_side": MOST_SIDE})
            async with anyio.create_task_group() as group:

                async def run(work: Awaitable[None]) -> None:
                    await work
                    group.cancel_scope.cancel()

                group.start_soon(run, self._receive(newest))
                group.start_soon(run, self._move(session, capture, newest))
                group.start_soon(run, self._write(session, newest))
        except* (WebSocketDisconnect, TimeoutError):
            pass  # The client is gone, or reads nothing: there is nothing to say to it.
        finally:
            session.close()

    async def _receive(self, newest: _Newest) -> None:
        """Messages, the newest in place of those before it, until the client is idle for too long."""
        while True:
            try:
                with anyio.fail_after(self._context.config.live_idle_s):
                    newest.put(await self._socket.receive_text())
                    await anyio.sleep(INTERVAL_S)
            except TimeoutError:
                idle = f"No camera came for {self._context.config.live_idle_s:g} s; connect again."
                await self._end(1000, idle, 408)
                return
            except KeyError:
                await self._end(1003, "Cameras are sent as text, not as bytes.", 415)
                return

    async def _move(self, session: LiveView, capture: Capture, newest: _Newest) -> None:
        """Cameras, until the client sends too much that is none."""
        refused = 0
        while refused < MOST_REFUSED:
            text = await newest.take()
            try:
                newest.is_drawn.clear()
                session.move(self._camera(text, capture))
                refused = 0
                # Understanding a camera costs more than it is worth where a newer one will be drawn in its place.
                with anyio.move_on_after(PATIENCE_S):
                    await newest.is_drawn.wait()
            except InputError as error:
                refused += 1
                await self._send({"type": "refused", "id": _id_in(text), "detail": from_input_error(error, 422).detail})
        await self._end(1008, f"{MOST_REFUSED} messages were no cameras.", 422)

    def _camera(self, text: str, capture: Capture) -> LiveCamera:
        """A message's camera in the coordinates of the stored scene.

        Raises:
            InputError: it is none, or cannot belong to the scene.
        """
        try:
            said = CameraMessage.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(["camera", *map(str, first["loc"])])
            raise InputError(where, first["msg"], "see docs/reference/live.md") from error
        if min(said.width, said.height) < self._least_side:
            found = f"it is {said.width}x{said.height}"
            raise InputError("camera.width", found, f"give sides of {self._least_side} pixels and more")
        scene = SceneCameras(
            contexts=capture.cameras(range(len(capture)), said.height, said.width), everyone=None, world=capture.world
        )
        body = {"w": said.width, "h": said.height, "frames": [{"c2w": said.c2w, "K": said.K}]}
        seen = covering(targets_in(body, Path("camera"), scene).cameras, said.height, said.width)
        return LiveCamera(
            number=said.id,
            c2w=tuple(map(tuple, seen.c2w[0].tolist())),
            K=tuple(map(tuple, seen.K[0].tolist())),
            height=said.height,
            width=said.width,
            quality=float(said.quality),
        )

    async def _write(self, session: LiveView, newest: _Newest) -> None:
        """Frames, until the session is closed or the caller may not stay."""
        is_waiting = True
        while True:
            frame = None
            with anyio.move_on_after(POLL_S) as polling:
                frame = await session.next()
            if frame is not None:
                is_waiting = False
                newest.is_drawn.set()
                await self._put(frame)
                continue
            if not polling.cancelled_caught:
                await self._end(1012, "The server is shutting down; connect again when it is back.", 503)
                return
            if is_waiting and newest.is_used:
                is_waiting = False
                detail = "The photos are being reconstructed, or the device is loading."
                await self._send({"type": "waiting", "detail": detail})
            if not await may_stay(self._context, self._caller):
                await self._end(1008, "The API key was revoked.", 401)
                return

    async def _put(self, frame: LiveFrame) -> None:
        """Sends a frame, or why there is none."""
        if frame.sentence:
            await self._send({"type": "refused", "id": frame.camera.number, "detail": frame.sentence})
            return
        header = json.dumps(
            {
                "type": "frame",
                "id": frame.camera.number,
                "level": "refined" if frame.is_still else "regression",
                "seconds": round(frame.seconds, 4),
                "refined_share": round(frame.active_share, 4),
                "width": frame.camera.width,
                "height": frame.camera.height,
            }
        ).encode()
        with anyio.fail_after(SEND_S):
            await self._socket.send_bytes(len(header).to_bytes(4, "little") + header + frame.jpeg)

    async def _send(self, message: JSONObject) -> None:
        with anyio.fail_after(SEND_S):
            await self._socket.send_text(json.dumps(message))

    async def _end(self, code: int, detail: str, status: int) -> None:
        """Says why the session ends, and ends it."""
        with contextlib.suppress(TimeoutError):
            await self._send({"type": "error", "detail": detail, "status": status})
            with anyio.fail_after(SEND_S):
                await self._socket.close(code)


def _id_in(text: str) -> int | None:
    """The number that a refused message may have given its camera."""
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict) and isinstance(value.get("id"), int):
            return int(value["id"])
    return None
