"""Uploads are decoded in processes of their own, which may be as wrong as they like: they die alone.

    upload ─► turn (one key after the other) ─► process with limits on memory, CPU time and time ─► `make_scene`

Decoders of pictures are large programs in C that read what strangers send. A process that decodes has the memory, the
CPU time and the time of `UploadLimits`; what is above ends it, and the client reads why. Processes are forked from one
that has imported what they need (`forkserver`), so that starting one takes milliseconds; where the system cannot fork,
they are started from scratch.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import sys
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from sphinx_nvs.errors import InputError, OutputError, SphinxError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.server.scenes.ingest import SceneRequest, StoredScene, make_scene
from sphinx_nvs.server.server_config import UploadLimits

TOO_MUCH = "decoding it takes more {} than an upload may"
"""What is found of an upload that is above a limit."""

_HINT = "send fewer or smaller photos"
_MOST_ANSWER = 1 << 20
"""Bytes of the longest answer of a process."""


_log = logging.getLogger(__name__)


class Turns:
    """Admits a number of holders at a time; keys that wait take turns, so that none waits for all of another's.

    Args:
        places: number of holders at a time.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, key_id: str) -> AsyncIterator[None]:
        """Waits for a place, and holds it inside the block."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(key_id)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, key_id: str) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key_id, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._pass_on()  # The place was given in the very moment in which it was given up.
            raise

    def _pass_on(self) -> None:
        """Gives a place to the next key's oldest waiter, or keeps it free."""
        while self._waiting:
            key_id, queue = self._waiting.popitem(last=False)
            place = queue.popleft()
            if queue:
                self._waiting[key_id] = queue  # Behind all other keys.
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


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
        self._turns = Turns(processes or max(1, (os.cpu_count() or 2) // 2))

    async def make(self, key_id: str, source: Path, folder: Path, request: SceneRequest) -> StoredScene:
        """Makes a scene; see `make_scene`.

        Args:
            key_id: whose upload it is; keys take turns.
            source: folder with the files, whose names are safe.
            folder: folder of the scene.
            request: options of the upload.

        Raises:
            InputError: the files cannot be used, or take more memory or time than an upload may.
        """
        work = _Work(source=source, folder=folder, request=request, limits=self._limits)
        async with self._turns.turn(key_id):
            return await self._made(work)

    async def _made(self, work: _Work) -> StoredScene:
        """Runs one process to its end, or ends it."""
        context = _context()
        here, there = context.Pipe(duplex=False)
        with here:
            process = context.Process(target=_TARGET, args=(there, work), daemon=True)  # type: ignore[attr-defined]
            try:
                await asyncio.to_thread(process.start)
                there.close()
                answer = await asyncio.wait_for(_received(here, process), work.limits.seconds)
            except TimeoutError as error:
                raise InputError("scene", TOO_MUCH.format("time"), _HINT) from error
            finally:
                there.close()
                if process.pid is not None:
                    await asyncio.shield(asyncio.to_thread(_end, process))
        if isinstance(answer, StoredScene):
            return answer
        raise answer


async def _received(connection: Connection, process: BaseProcess) -> StoredScene | SphinxError:
    """What a process sends, or why it sends nothing."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection.fileno(), arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(connection.fileno())
    try:
        # Not `recv`, which unpickles: an attacker who takes over a process that decodes gets no further.
        answer = json.loads(connection.recv_bytes(_MOST_ANSWER))
    except EOFError:
        await asyncio.to_thread(process.join, 10.0)
        return _death(process.exitcode)
    if answer["kind"] == "made":
        return StoredScene(**{**answer["scene"], "warnings": tuple(answer["scene"]["warnings"])})
    return (OutputError if answer["kind"] == "full" else InputError)(*answer["sentence"])


def _death(exit_code: int | None) -> SphinxError:
    """The error for a process that ended without an answer."""
    if exit_code == -signal.SIGXCPU:
        return InputError("scene", TOO_MUCH.format("CPU time"), _HINT)
    _log.warning("an upload's process ended without an answer", extra={"exit_code": exit_code})
    return InputError("scene", "its files break the program that decodes them", f"check them, or {_HINT}")


def _end(process: BaseProcess) -> None:
    """Kills a process, if it still runs, and waits for its end."""
    process.kill()
    process.join(10.0)


def _context() -> BaseContext:
    """The way in which processes are started."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _decode(connection: Connection, work: _Work) -> None:
    """The process: makes a scene and sends the answer."""
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit(work.limits)
    try:
        made = make_scene(work.source, work.folder, work.request, work.limits)
    except InputError as error:
        kind = "full" if isinstance(error, OutputError) else "refused"
        _answer(connection, {"kind": kind, "sentence": [error.where, error.found, error.hint]})
    except MemoryError:
        _answer(connection, {"kind": "refused", "sentence": ["scene", TOO_MUCH.format("memory"), _HINT]})
    else:
        _answer(connection, {"kind": "made", "scene": vars(made)})


def _answer(connection: Connection, answer: JSONObject) -> None:
    """Sends what became of an upload."""
    connection.send_bytes(json.dumps(answer).encode())


_TARGET = _decode


def _limit(limits: UploadLimits) -> None:
    """Limits this process's memory and CPU time, where the system can."""
    try:
        import resource
    except ImportError:
        return
    seconds = round(limits.seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS refuses the limit.
        # What is mapped already, most of it libraries, does not count.
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = mapped + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
