"""Scenes of plain photos: their cameras are found one scene of a key after the other, whatever happens.

    upload ─► row `posing` ─► turn ─► process with limits (`plain_photos.pose`) ─► row `ready` or `failed`

The row and the files that were sent outlast the server: the next start takes up what is not finished, from the last
finished stage. A scene that is deleted is no longer posed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from sphinx_nvs.engine.catalog import discard_folder
from sphinx_nvs.engine.store.row_types import SceneRow, SceneState
from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.server.backend import LibraryBackend
from sphinx_nvs.server.scenes import limited_process, plain_photos
from sphinx_nvs.server.scenes.ingest import StoredScene
from sphinx_nvs.server.scenes.ingest_pool import TOO_MUCH, Turns, death, refusal, stored_scene
from sphinx_nvs.server.server_config import UploadLimits

WAITING = "waiting"
"""The stage of a scene whose turn has not come."""

_PLACES = 2
"""Of these one key holds one: photos that take an hour keep those of no other key waiting."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PosingProgress:
    """Where posing is.

    Args:
        stage: the present activity.
        share: of the work that is done, 0..1.
        left_s: seconds left; None if unknown.
    """

    stage: str = WAITING
    share: float = 0.0
    left_s: float | None = None


class _FailedError(Exception):
    """Photos without cameras.

    Args:
        error: the sentence.
        reasons: photo, found and hint of single photos.
    """

    def __init__(self, error: InputError, reasons: list[JSONObject]) -> None:
        super().__init__(str(error))
        self.failure = {"where": error.where, "found": error.found, "hint": error.hint, "photos": reasons}


class PosingJobs:
    """Poses scenes.

    Args:
        limits: of a process.
    """

    def __init__(self, limits: UploadLimits) -> None:
        self._limits = limits
        self._turns = Turns(_PLACES)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, PosingProgress] = {}
        self._changed = asyncio.Event()

    def progress(self, scene_id: str) -> PosingProgress | None:
        """Where the posing of a scene is, None if it is not posed."""
        return self._progress.get(scene_id)

    async def change(self, timeout_s: float) -> None:
        """Waits until any scene's progress has changed, or for a time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)

    async def resume(self, library: LibraryBackend) -> None:
        """Takes up what an earlier server did not finish."""
        for row in await library.posing_scenes():
            self.start(library, row)

    def start(self, library: LibraryBackend, row: SceneRow) -> None:
        """Has a scene posed, whose row and upload are stored."""
        self._note(row.id, PosingProgress())
        task = asyncio.create_task(self._run(library, row))
        self._tasks[row.id] = task
        task.add_done_callback(lambda done: self._forget(row.id))

    async def cancel(self, scene_id: str) -> None:
        """Ends the posing of a scene, if there is any."""
        task = self._tasks.get(scene_id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Ends all posing; rows and finished stages stay for the next start."""
        for scene_id in list(self._tasks):
            await self.cancel(scene_id)

    def _note(self, scene_id: str, progress: PosingProgress) -> None:
        self._progress[scene_id] = progress
        self._wake()

    def _forget(self, scene_id: str) -> None:
        self._tasks.pop(scene_id, None)
        self._progress.pop(scene_id, None)
        self._wake()

    def _wake(self) -> None:
        """Wakes all that wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _run(self, library: LibraryBackend, row: SceneRow) -> None:
        """Poses a scene in its turn, and writes what became of it."""
        folder = Path(row.path)
        try:
            async with self._turns.turn(row.key_id):
                ended = await self._ended(row)
            if await library.finish_posing(ended) is None:
                await run_in_threadpool(discard_folder, folder)
            else:
                await run_in_threadpool(plain_photos.discard_upload, folder)
        except SphinxError:
            # The row stays as it is, and the next start tries again.
            _log.exception("what became of a posed scene cannot be stored", extra={"scene_id": row.id})

    async def _ended(self, row: SceneRow) -> SceneRow:
        """The row of a scene that was posed, or was not."""
        try:
            made = await self._posed(row)
        except _FailedError as failed:
            return replace(row, state=SceneState.FAILED, failure=failed.failure, bytes=0)
        return replace(
            row,
            state=SceneState.READY,
            num_views=made.num_views,
            width=made.width,
            height=made.height,
            warnings=made.warnings,
            bytes=made.bytes,
        )

    async def _posed(self, row: SceneRow) -> StoredScene:
        """Runs the process of a scene."""

        def progress(message: JSONObject) -> None:
            kept = {name: message[name] for name in ("stage", "share", "left_s")}
            self._note(row.id, PosingProgress(**kept))

        work = plain_photos.PosingWork(folder=Path(row.path), limits=self._limits)
        seconds, hint = self._limits.posing_seconds, plain_photos.HINT
        try:
            answer = await limited_process.answer_of(plain_photos.pose, work, seconds=seconds, progress=progress)
        except TimeoutError as error:
            raise _FailedError(InputError("scene", TOO_MUCH.format("time"), hint), []) from error
        except limited_process.ProcessDiedError as error:
            raise _FailedError(death(error, hint), []) from error
        if answer["kind"] == "made":
            return stored_scene(answer)
        raise _FailedError(refusal(answer), answer["reasons"])
