"""A worker's process as the pool sees it: started, sent commands, listened to, ended.

    pool  PUSH ──► PULL  worker      commands
    pool  PUSH ──► PULL  worker      frames of live sessions to draw
    pool  PULL ◄── PUSH  worker      everything else

The sockets are in a folder that only this user may enter, new ones for every process: it gets no message of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import zmq
import zmq.asyncio

from sphinx_nvs.engine.executor.wire_codec import decode, encode
from sphinx_nvs.engine.executor.worker_messages import Beat, Failed, Loaded
from sphinx_nvs.engine.types.device_setup import DeviceSetup
from sphinx_nvs.engine.types.live import Draw, LiveReport
from sphinx_nvs.engine.types.messages import Command, Report

WORKER = "sphinx_nvs.engine.executor.worker"
"""The module that a worker runs."""

END_S = 10.0
"""Seconds in which a killed process ends, unless the system itself cannot end it."""

_log = logging.getLogger(__name__)


class Child:
    """A worker's process; starts at once.

    Args:
        setup: setup of its device.
        folder: folder of its sockets.
        name: name of this process, unique in the folder.
        context: ZeroMQ context of the pool's sockets.
        environment: environment variables of the process.
        beat_s: seconds between its heartbeats.
    """

    def __init__(
        self,
        setup: DeviceSetup,
        folder: Path,
        name: str,
        context: zmq.asyncio.Context,
        environment: Mapping[str, str],
        beat_s: float,
    ) -> None:
        up, down = f"ipc://{folder / name}.up", f"ipc://{folder / name}.down"
        self._up = context.socket(zmq.PULL)
        self._up.bind(up)
        live = f"ipc://{folder / name}.live"
        self._down, self._live = _sender(context, down), _sender(context, live)
        start = {
            "setup": dataclasses.asdict(setup),
            "up": up,
            "down": down,
            "live": live,
            "parent": os.getpid(),
            "beat_s": beat_s,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER], stdin=subprocess.PIPE, env={**os.environ, **environment}
        )
        assert self._process.stdin
        # By standard input, not by arguments or environment: those of a process are visible to other users. A process
        # that ended at once is noticed by the pool.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(json.dumps(start).encode())

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Exit status of a process that ended; negative for a signal."""
        return self._process.poll()

    def send(self, command: Command) -> None:
        """Sends a command, if the process is still there to take it.

        Raises:
            MessageError: it cannot become bytes.
        """
        data = encode(command)
        with contextlib.suppress(zmq.Again):
            self._down.send(data, zmq.NOBLOCK)

    def draw(self, command: Draw) -> None:
        """Sends a frame to be drawn, as `send` does."""
        data = encode(command)
        with contextlib.suppress(zmq.Again):
            self._live.send(data, zmq.NOBLOCK)

    async def receive(self, within_s: float | int) -> Beat | Loaded | Failed | Report | LiveReport | None:
        """The worker's next message; None if there is none in time.

        Raises:
            MessageError: the received bytes are no message.
        """
        if not await self._up.poll(round(1000 * within_s)):
            return None
        return decode(await self._up.recv())

    async def end(self) -> None:
        """Kills the process; its temporary files stay.

        One that hangs in the system (a device's driver, a lost network disk) is not waited for longer than `END_S`.
        """
        # Killed and not asked: a process that hangs would not answer, and one that works has nothing to save, since
        # finished units are files already.
        self._process.kill()
        try:
            await asyncio.to_thread(self._process.wait, END_S)
        except subprocess.TimeoutExpired:
            _log.error("worker does not end and is left running", extra={"pid": self.pid})
        finally:
            # Nothing lingers: commands for a dead process must not keep the pool's context from ending.
            self._up.close(linger=0)
            self._down.close(linger=0)
            self._live.close(linger=0)


def _sender(context: zmq.asyncio.Context, address: str) -> zmq.Socket[bytes]:
    """A plain socket: sending never waits. It queues until the worker is there, since it connects."""
    made: zmq.Socket[bytes] = zmq.Context.shadow(context.underlying).socket(zmq.PUSH)
    # No limit to what waits: the engine sends a device one command at a time, so there is next to nothing.
    made.setsockopt(zmq.SNDHWM, 0)
    made.connect(address)
    return made
