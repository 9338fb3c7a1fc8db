"""Live sessions of an engine: cameras in, frames out, the newest of both first.

    session.move(camera) -> `LiveTurns` decides -> `Draw` to a device -> `Drawn` -> session.next()

A session that reads slowly gets the newest frame, not all of them. Nothing is stored: a session ends with its
connection.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sphinx_nvs.engine.metrics import Metrics
from sphinx_nvs.engine.scheduler.live_turns import LiveTurn, LiveTurns
from sphinx_nvs.engine.types.live import Draw, Drawn, LiveCamera, LiveReport, NotDrawn


@dataclass(frozen=True, kw_only=True)
class LiveFrame:
    """A frame for a session's client, or why there is none.

    Args:
        camera: what it shows.
        is_still: whether it is refined.
        jpeg: the frame; empty if there is none.
        active_share: see `Drawn`.
        seconds: the device was busy.
        sentence: why there is no frame.
    """

    camera: LiveCamera
    is_still: bool
    jpeg: bytes = b""
    active_share: float = 0.0
    seconds: float = 0.0
    sentence: str = ""


class LiveSession:
    """One client's session; `LiveDesk.open` makes it.

    Args:
        desk: that serves it.
        name: unique.
        scene_path: folder of its scene.
    """

    def __init__(self, desk: LiveDesk, name: str, scene_path: str) -> None:
        self.name, self.scene_path, self.dropped = name, scene_path, 0
        self._desk = desk
        self._newest: tuple[int, LiveCamera]
        self._waiting: LiveFrame | None = None
        self._is_closed = False
        self._changed = asyncio.Event()

    def move(self, camera: LiveCamera) -> None:
        """Shows what a camera sees, in place of every earlier one that was not drawn yet."""
        if not self._is_closed:
            self._desk.move(self, camera)

    async def next(self) -> LiveFrame | None:
        """The newest frame that was not taken yet, once there is one; None when the session is closed."""
        while self._waiting is None and not self._is_closed:
            self._changed.clear()
            await self._changed.wait()
        frame, self._waiting = self._waiting, None
        return None if self._is_closed else frame

    def close(self) -> None:
        """Ends the session."""
        if not self._is_closed:
            self._is_closed = True
            self._changed.set()
            self._desk.forget(self)

    # For the desk ---------------------------------------------------------------------------------------------------

    def put(self, frame: LiveFrame) -> None:
        """Offers a frame to the client."""
        self.dropped += self._waiting is not None
        self._waiting = frame
        self._changed.set()

    def remember(self, number: int, camera: LiveCamera) -> None:
        """Notes the newest camera; turns are only ever about that one."""
        self._newest = number, camera

    def camera(self, number: int) -> LiveCamera:
        """The newest camera, whose number is known."""
        newest, camera = self._newest
        assert newest == number
        return camera


class LiveDesk:
    """Serves the live sessions of one engine; used by one event loop.

    Args:
        turns: decides.
        draw: sends a device a frame to draw, see `protocols.Devices`.
        working: numbers of the devices that carry out commands of jobs.
        metrics: counters.
        clock: seconds that never step back.
    """

    def __init__(
        self,
        turns: LiveTurns,
        draw: Callable[[int, Draw], None],
        working: Callable[[], Collection[int]],
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._turns, self._draw, self._working = turns, draw, working
        self._metrics, self._clock = metrics, clock
        self._sessions: dict[str, LiveSession] = {}
        self._running: dict[tuple[int, int], tuple[LiveTurn, LiveCamera]] = {}
        self._numbers = itertools.count(1)
        self._ready: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def open(self, scene_path: str, key_id: str) -> LiveSession:
        """A new session in a stored scene."""
        session = LiveSession(self, secrets.token_hex(8), scene_path)
        self._sessions[session.name] = session
        self._turns.open(session.name, key_id)
        self._metrics.live_sessions.set(len(self._sessions))
        return session

    def close(self) -> None:
        """Ends all sessions."""
        for session in list(self._sessions.values()):
            session.close()

    def move(self, session: LiveSession, camera: LiveCamera) -> None:
        """See `LiveSession.move`."""
        session.remember(self._turns.move(self._clock(), session.name), camera)
        self.dispatch()

    def forget(self, session: LiveSession) -> None:
        """See `LiveSession.close`."""
        del self._sessions[session.name]
        self._turns.close(session.name)
        self._metrics.live_sessions.set(len(self._sessions))
        self._sleep()

    def device_ready(self, device: int) -> None:
        """A device takes commands."""
        self.device_lost(device)
        self._ready.add(device)
        self.dispatch()

    def device_lost(self, device: int) -> None:
        """A device has lost what it was drawing; other devices, or its next process, draw it."""
        self._ready.discard(device)
        self._turns.lost(device)
        self._running = {key: turn for key, turn in self._running.items() if key[0] != device}
        self.dispatch()

    def take(self, device: int, report: LiveReport) -> None:
        """A device's answer."""
        turn, camera = self._running.pop((device, report.turn), (None, None))
        if turn is None or camera is None:
            return
        gave_way = isinstance(report, NotDrawn) and not report.sentence
        self._turns.done(self._clock(), turn, report.seconds, is_made=not gave_way)
        self._metrics.live_busy.inc(report.seconds)
        session = self._sessions.get(turn.session)
        if session is not None and not gave_way:
            session.put(_frame_of(turn, camera, report))
            level = "none" if isinstance(report, NotDrawn) else "refined" if turn.is_still else "regression"
            self._metrics.live_frames.labels(level=level).inc()
        self.dispatch()

    def dispatch(self) -> None:
        """Sends devices what is due, and sleeps until more is."""
        for turn in self._turns.next(self._clock(), self._ready, self._working()):
            session = self._sessions[turn.session]
            camera, number = session.camera(turn.number), next(self._numbers)
            self._running[turn.device, number] = turn, camera
            self._draw(
                turn.device,
                Draw(
                    session=turn.session,
                    turn=number,
                    scene_path=session.scene_path,
                    camera=camera,
                    is_still=turn.is_still,
                ),
            )
        self._sleep()

    def _sleep(self) -> None:
        """Sets the timer to when something is due without another event."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        at = self._turns.wakes_at(now, self._ready)
        if at is not None:
            self._timer = asyncio.get_running_loop().call_later(at - now, self.dispatch)


def _frame_of(turn: LiveTurn, camera: LiveCamera, report: LiveReport) -> LiveFrame:
    """What the client gets."""
    if isinstance(report, Drawn):
        return LiveFrame(
            camera=camera,
            is_still=turn.is_still,
            jpeg=report.jpeg,
            active_share=report.active_share,
            seconds=report.seconds,
        )
    return LiveFrame(camera=camera, is_still=turn.is_still, sentence=report.sentence, seconds=report.seconds)
