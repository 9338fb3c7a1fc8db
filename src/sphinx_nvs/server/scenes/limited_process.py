"""Processes of one task each, with limits on memory and CPU time: what strangers send is decoded there.

A process sends JSON, its progress first and its answer last, and ends once nothing reads what it sends. Processes are
forked from one that has imported what they need (`forkserver`), so that starting one takes milliseconds; where the
system cannot fork, they are started from scratch.

A process that is killed from outside (SIGKILL: by the system when memory runs out, or by a person) is started again, a
few times; one that breaks on what it reads is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from sphinx_nvs.json_types import JSONObject

PROGRESS = "progress"
"""The kind of every message but the last."""

ATTEMPTS = 3
"""Processes that are started for one task, if they are killed from outside."""

_MOST_MESSAGE = 1 << 20
"""Bytes of the longest message."""

_PRELOADED = "sphinx_nvs.server.scenes.ingest_pool"
_CHECK_S = 1.0
_UNHEARD = 113
_UNKNOWN = 255  # What multiprocessing says of a process whose forkserver is gone.

_log = logging.getLogger(__name__)

Target = Callable[..., None]
"""A process's function; receives a connection and the work, and sends messages with `send`."""


class ProcessDiedError(Exception):
    """A process ended without an answer.

    Args:
        exit_code: negative for a signal's number; None if it did not start.
    """

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        super().__init__(f"exit code {exit_code}")

    @property
    def was_killed(self) -> bool:
        """Whether it was killed from outside, alone or with the process that it was forked from."""
        return self.exit_code in (None, -signal.SIGKILL, _UNHEARD, _UNKNOWN)


def prepare() -> None:
    """Starts the process that others are forked from, unless it runs; it needs seconds until it is ready."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver  # Not on every system.

        forkserver.ensure_running()


async def answer_of(
    target: Target, work: object, *, seconds: float, progress: Callable[[JSONObject], None] = lambda message: None
) -> JSONObject:
    """Runs a process to its end, or ends it; one that is killed from outside is started again.

    Args:
        target: what it calls; once more with what it left behind, if it is started again.
        work: the function's second argument.
        seconds: time limit of all its processes together; it does not count how long these take to start, which is no
            fault of the work's.
        progress: receives every message but the last.

    Raises:
        TimeoutError: there is no answer after `seconds`.
        ProcessDiedError: it ended without an answer.
    """
    clock, left_s, attempt = asyncio.get_running_loop().time, seconds, 0
    while True:
        attempt += 1
        try:
            async with _started(target, work) as (connection, process):
                began = clock()
                try:
                    async with asyncio.timeout(left_s):
                        return await _received(connection, process, progress)
                finally:
                    left_s -= clock() - began
        except ProcessDiedError as error:
            if not error.was_killed or attempt == ATTEMPTS:
                raise
            _log.warning("a process was killed, and is started again", extra={"exit_code": error.exit_code})


@contextlib.asynccontextmanager
async def _started(target: Target, work: object) -> AsyncIterator[tuple[Connection, BaseProcess]]:
    """Starts a process, and ends it in the end; yields the connection on which it sends, too."""
    context = _context()
    here, there = context.Pipe(duplex=False)
    with here:
        process = context.Process(target=target, args=(there, work), daemon=True)  # type: ignore[attr-defined]
        try:
            try:
                await asyncio.to_thread(process.start)
            except (OSError, EOFError) as error:  # The process that forks was killed in this very moment.
                raise ProcessDiedError(None) from error
            there.close()
            yield here, process
        finally:
            there.close()
            if process.pid is not None:
                await asyncio.shield(asyncio.to_thread(_end, process))


async def _received(connection: Connection, process: BaseProcess, progress: Callable[[JSONObject], None]) -> JSONObject:
    """The last of the messages that a process sends."""
    while True:
        await _arrival(connection)
        try:
            # Not `recv`, which unpickles: an attacker who takes over a process that decodes gets no further.
            message = json.loads(connection.recv_bytes(_MOST_MESSAGE))
        except EOFError as error:
            await asyncio.to_thread(process.join, 10.0)
            raise ProcessDiedError(process.exitcode) from error
        if message["kind"] != PROGRESS:
            return dict(message)
        progress(message)


async def _arrival(connection: Connection) -> None:
    """Waits for a message, or the connection's end."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection.fileno(), arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(connection.fileno())


def _end(process: BaseProcess) -> None:
    """Kills a process, if it still runs, and waits for its end."""
    process.kill()
    process.join(10.0)


def _context() -> BaseContext:
    """The way in which processes are started."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED])
    return context


# In the process -------------------------------------------------------------------------------------------------------


def send(connection: Connection, message: JSONObject) -> None:
    """Sends a message."""
    try:
        connection.send_bytes(json.dumps(message).encode())
    except BrokenPipeError:
        os._exit(_UNHEARD)


def begin(connection: Connection, *, cpu_seconds: int, memory_bytes: int, niceness: int = 0) -> None:
    """Prepares this process: private files, no interrupts from a terminal, limits, and an end once nothing reads on.

    Args:
        connection: on which it sends.
        cpu_seconds: CPU time that it may take.
        memory_bytes: memory that it may take.
        niceness: by how much it lets others go first.
    """
    os.umask(0o077)
    if hasattr(os, "nice"):
        os.nice(niceness)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _is_unheard(connection, within_s=0.0):
        os._exit(_UNHEARD)
    threading.Thread(target=_end_unheard, args=(connection,), daemon=True).start()
    _limit(cpu_seconds, memory_bytes)


def _end_unheard(connection: Connection) -> None:
    """Ends this process once what it sends is read no more.

    Its server was killed, or has given it up: then another process does its work, in the same folder.
    """
    while not _is_unheard(connection, _CHECK_S):
        pass
    os._exit(_UNHEARD)


def _is_unheard(connection: Connection, within_s: float) -> bool:
    """Whether the other end of a connection is closed, or becomes so soon."""
    if not hasattr(select, "poll"):  # Windows. Its processes are not forked: the server is their parent.
        time.sleep(within_s)
        parent = multiprocessing.parent_process()
        return parent is not None and not parent.is_alive()
    poll = select.poll()
    poll.register(connection.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(1000 * within_s))


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    """Limits this process's memory and CPU time, where the system can."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS refuses the limit.
        with contextlib.suppress(OSError):
            # When the machine's memory runs out, this process goes first, and not the server.
            Path("/proc/self/oom_score_adj").write_text("1000")
        # What is mapped already, most of it libraries, does not count.
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = mapped + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
