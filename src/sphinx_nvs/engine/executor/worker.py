"""A worker's process: one device, commands in, reports out. Started by the pool, `python -m` this module.

The device's setup and three addresses come as JSON on standard input. A second thread sends heartbeats, and ends the
process when its parent has ended. A third one draws frames of live sessions. Signals that end the server are handled by
the parent.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import zmq

from sphinx_nvs.engine.executor.device_maker import make_device
from sphinx_nvs.engine.executor.wire_codec import MessageError, decode, encode
from sphinx_nvs.engine.executor.worker_messages import Beat, Failed, Loaded
from sphinx_nvs.engine.logs import line_formatter, wants_json
from sphinx_nvs.engine.malloc_trim import trim_malloc
from sphinx_nvs.engine.types.device_setup import CommandTaker, DeviceSetup, FramePainter
from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.json_types import JSONObject

_log = logging.getLogger(__name__)

IDLE_MS = 2000
"""Idle time after which a device returns freed memory to the system; once, until it works again."""

BUSY_S = 60.0
"""Interval at which a busy device returns freed memory to the system, which takes some milliseconds."""


@dataclass(kw_only=True)
class Heartbeat:
    """Heartbeats, sent by a thread of its own.

    Args:
        address: address of the pool.
        parent: process id of the pool.
        beat_s: seconds between heartbeats.
        folder: the pool's folder of sockets.
        since: when the current command started, monotonic seconds; None if the device is idle.
        drawing_since: when the current frame of a live session was begun; None if none is drawn.
    """

    address: str
    parent: int
    beat_s: float
    folder: Path
    since: float | None = None
    drawing_since: float | None = None

    @property
    def busy_s(self) -> float:
        """Seconds since the older of the current command and the current frame was begun; 0 without any."""
        begun = [since for since in (self.since, self.drawing_since) if since is not None]
        return time.monotonic() - min(begun) if begun else 0.0

    def start(self, context: zmq.SyncContext) -> None:
        """Starts the thread."""
        threading.Thread(target=self._beat, args=(context,), name="heartbeat", daemon=True).start()

    def _beat(self, context: zmq.SyncContext) -> None:
        """Sends how long the device has been busy, until the parent has ended."""
        out = context.socket(zmq.PUSH)
        out.connect(self.address)
        while os.getppid() == self.parent:
            # Never waits: a thread that waits for a parent that has ended would not notice it.
            with contextlib.suppress(zmq.Again):
                out.send(encode(Beat(busy_s=self.busy_s)), zmq.NOBLOCK)
            time.sleep(self.beat_s)
        # The pool was killed and cannot remove its folder; other workers find it gone.
        shutil.rmtree(self.folder, ignore_errors=True)
        os._exit(0)


def work(start: JSONObject) -> None:
    """Opens the device and carries out commands until the process ends."""
    context: zmq.SyncContext = zmq.Context()
    # Before the models are loaded: that takes long, and silence would be taken for death.
    heartbeat = Heartbeat(
        address=start["up"],
        parent=start["parent"],
        beat_s=start["beat_s"],
        folder=Path(start["up"].removeprefix("ipc://")).parent,
        since=time.monotonic(),
    )
    heartbeat.start(context)
    up, down = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    down.bind(start["down"])
    up.connect(start["up"])
    try:
        opened = make_device(DeviceSetup(**start["setup"]))
    except Exception as error:
        up.send(encode(_failed(error)))
        # Long enough for the message to leave; the pool ends the process.
        time.sleep(10)
        return
    live = threading.Thread(
        target=paint, args=(opened.painter, heartbeat, context, start["live"], start["up"]), name="live", daemon=True
    )
    live.start()
    up.send(encode(Loaded(name=opened.name, facts=opened.facts)))
    carry_out(opened.device, heartbeat, down, up)


def carry_out(
    device: CommandTaker, heartbeat: Heartbeat, down: zmq.SyncSocket, up: zmq.SyncSocket, busy_s: float = BUSY_S
) -> None:
    """Carries out commands for ever, and returns freed memory to the system when idle, or every `busy_s` seconds."""
    freed_at = time.monotonic()
    while True:
        heartbeat.since = None
        if not down.poll(IDLE_MS) or time.monotonic() - freed_at > busy_s:
            trim_malloc()
            freed_at = time.monotonic()
        data = down.recv()
        heartbeat.since = time.monotonic()
        up.send(encode(device.do(decode(data))))


def paint(painter: FramePainter, heartbeat: Heartbeat, context: zmq.SyncContext, live: str, up: str) -> None:
    """Draws frames of live sessions for ever."""
    down, out = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    down.bind(live)
    out.connect(up)
    while True:
        command = decode(down.recv())
        heartbeat.drawing_since = time.monotonic()
        out.send(encode(painter.draw(command, lambda: bool(down.poll(0)))))
        heartbeat.drawing_since = None


def _failed(error: Exception) -> Failed:
    """The message about a device that cannot be opened."""
    if not isinstance(error, SphinxError):
        _log.error("the models could not be loaded", exc_info=error)
        return Failed(sentence="the models could not be loaded; see the log", is_users_fault=False)
    return Failed(sentence=str(error), is_users_fault=isinstance(error, InputError))


def main() -> None:
    """Runs until the parent ends it, or has ended."""
    # Ctrl-C goes to every process of the terminal: workers must outlive it while the server drains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    handler = logging.StreamHandler()
    handler.setFormatter(line_formatter(is_json=wants_json()))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        work(json.load(sys.stdin))
    except MessageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
