"""Uploads are decoded in processes of their own, which may be as wrong as they like: they die alone.

    upload ─► turn (one key after the other) ─► process with limits on memory, CPU time and time ─► `make_scene`

Decoders of pictures are large programs in C that read what strangers send. A process that decodes has the memory, the
CPU time and the time of `UploadLimits`; what is above ends it, and the client reads why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from sphinx_nvs.engine.types.engine_errors import RefusedError
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.server.scenes import limited_process
from sphinx_nvs.server.scenes.ingest import SceneRequest, StoredScene, make_scene
from sphinx_nvs.server.server_config import UploadLimits

TOO_MUCH = "decoding it takes more {} than an upload may"
"""What is found of an upload that is above a limit."""

KILLED_RETRY_S = 5.0
"""Seconds until an upload whose process was killed again and again may be sent again."""

_HINT = "send fewer or smaller photos"
_log = logging.getLogger(__name__)


class Turns:
    """Admits a number of holders at a time; keys that wait take turns, so that none waits for all of another's.

    Of several places one key holds all but one at most: the last is for another, whatever the first ones take.

    Args:
        places: number of holders at a time.
    """

    def __init__(self, places: int) -> None:
        self._free, self._most_of_key = places, max(1, places - 1)
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, key_id: str) -> AsyncIterator[None]:
        """Waits for a place, and holds it inside the block."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key_id, deque()).append(place)
        self._give()
        try:
            await place
            yield
        finally:
            # A place may be given in the very moment in which it is given up.
            if place.done() and not place.cancelled():
                self._free += 1
                self._held[key_id] -= 1
            place.cancel()
            self._give()

    def _give(self) -> None:
        """Gives free places to the oldest waiters of the keys whose turn it is."""
        for key_id in list(self._waiting):
            queue = self._waiting[key_id]
            while queue and queue[0].cancelled():
                queue.popleft()
            if queue and self._free and self._held[key_id] < self._most_of_key:
                queue.popleft().set_result(None)
                self._free -= 1
                self._held[key_id] += 1
                self._waiting.move_to_end(key_id)  # Behind all other keys.
            if not queue:
                del self._waiting[key_id]
        self._held += Counter()  # Without keys that hold nothing.


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a process does."""

    source: Path
    folder: Path
    request: SceneRequest
    limits: UploadLimits


class IngestPool:
    """Makes scenes of uploads, each in a process of its own.

    Args:
        limits: limits on an upload.
        processes: number of processes at a time.
    """

    def __init__(self, limits: UploadLimits, processes: int | None = None) -> None:
        self._limits = limits
        self._turns = Turns(processes or max(2, (os.cpu_count() or 2) // 2))

    async def make(self, key_id: str, source: Path, folder: Path, request: SceneRequest) -> StoredScene:
        """Makes a scene; see `make_scene`.

        Args:
            key_id: whose upload it is; keys take turns.
            source: folder with the files, whose names are safe.
            folder: folder of the scene.
            request: options of the upload.

        Raises:
            InputError: the files cannot be used, or take more memory or time than an upload may.
            RefusedError: the process was killed from outside as often as it is started.
        """
        work = _Work(source=source, folder=folder, request=request, limits=self._limits)
        async with self._turns.turn(key_id):
            return await self._made(work)

    async def _made(self, work: _Work) -> StoredScene:
        """Runs one process to its end, or ends it."""
        try:
            answer = await limited_process.answer_of(_TARGET, work, seconds=work.limits.seconds)
        except TimeoutError as error:
            raise InputError("scene", TOO_MUCH.format("time"), _HINT) from error
        except limited_process.ProcessDiedError as error:
            failure = death(error, _HINT)
            if error.was_killed:
                # No fault of the files': clients try again by themselves.
                raise RefusedError(str(failure), retry_after_s=KILLED_RETRY_S) from error
            raise failure from error
        if answer["kind"] == "made":
            return stored_scene(answer)
        raise refusal(answer)


def stored_scene(answer: JSONObject) -> StoredScene:
    """The scene of a process's answer."""
    return StoredScene(**{**answer["scene"], "warnings": tuple(answer["scene"]["warnings"])})


def refusal(answer: JSONObject) -> InputError:
    """The error of a process's answer."""
    return (OutputError if answer["kind"] == "full" else InputError)(*answer["sentence"])


def death(error: limited_process.ProcessDiedError, hint: str) -> InputError:
    """The error for a process that ended without an answer."""
    if error.exit_code == -signal.SIGXCPU:
        return InputError("scene", TOO_MUCH.format("CPU time"), hint)
    _log.warning("an upload's process ended without an answer", extra={"exit_code": error.exit_code})
    if error.was_killed:
        found = f"the process that reads it was killed {limited_process.ATTEMPTS} times"
        return InputError("scene", found, f"send it again later, or {hint}")
    return InputError("scene", "its files break the program that decodes them", f"check them, or {hint}")


def answer_with(connection: Connection, make: Callable[[], StoredScene], hint: str) -> None:
    """In the process: makes a scene and sends the answer."""
    try:
        made = make()
    except InputError as error:
        kind = "full" if isinstance(error, OutputError) else "refused"
        reasons = [vars(reason) for reason in getattr(error, "reasons", ())]
        sentence = [error.where, error.found, error.hint]
        limited_process.send(connection, {"kind": kind, "sentence": sentence, "reasons": reasons})
    except MemoryError:
        sentence = ["scene", TOO_MUCH.format("memory"), hint]
        limited_process.send(connection, {"kind": "refused", "sentence": sentence, "reasons": []})
    else:
        limited_process.send(connection, {"kind": "made", "scene": vars(made)})


def _decode(connection: Connection, work: _Work) -> None:
    """The process."""
    limited_process.begin(connection, cpu_seconds=round(work.limits.seconds), memory_bytes=work.limits.memory_bytes)
    _clear(work.folder, work.source)
    answer_with(connection, lambda: make_scene(work.source, work.folder, work.request, work.limits), _HINT)


def _clear(folder: Path, source: Path) -> None:
    """Removes what a process that was killed left of a scene."""
    for path in folder.glob("*"):
        if path != source:
            path.unlink()


_TARGET = _decode
