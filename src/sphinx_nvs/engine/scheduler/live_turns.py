"""Live sessions take turns on devices, beside the jobs that these work for.

    camera arrives -> a frame of the regressor, soon -> no newer camera for `rest_s` -> a refined still

Moving sessions come before stills, and among them the one whose key was served least. A still gives way: while a device
refines one, a frame of a moving session may be sent after it. Beside a job, a device draws for `live_share` of the time
at most: after a frame of s seconds it pauses for s (1 - share) / share.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sphinx_nvs.engine.scheduler.fairness import Served


@dataclass(frozen=True, kw_only=True)
class LiveTurn:
    """A frame to draw now.

    Args:
        device: its number.
        session: the session.
        number: which of the session's cameras, counted from 1.
        is_still: whether it is refined.
    """

    device: int
    session: str
    number: int
    is_still: bool


@dataclass(kw_only=True)
class _Session:
    """A session.

    Args:
        key_id: API key, for fairness.
        device: that has its scene in memory; None before the first frame.
        number: of the newest camera; 0 before the first.
        moved_at: when that arrived.
        drawn: number of the last camera that was drawn.
        refined: number of the last camera that was refined.
        turn_at: when its last turn began.
    """

    key_id: str
    device: int | None = None
    number: int = 0
    moved_at: float = 0.0
    drawn: int = 0
    refined: int = 0
    turn_at: float = -math.inf

    @property
    def moves(self) -> bool:
        """Whether its newest camera is to be drawn."""
        return self.drawn < self.number

    @property
    def rests(self) -> bool:
        """Whether its newest camera is to be refined, once it has rested long enough."""
        return 0 < self.number == self.drawn and self.refined < self.number


class LiveTurns:
    """Decides what is drawn next.

    Args:
        share: most of a device's time beside a job, in [0, 1).
        rest_s: seconds without a newer camera before a still is refined.
    """

    def __init__(self, share: float | int, rest_s: float | int) -> None:
        self._share, self._rest_s = float(share), float(rest_s)
        self._sessions: dict[str, _Session] = {}
        self._served = Served()
        self._running: dict[int, list[LiveTurn]] = {}
        self._pauses_until: dict[int, float] = {}

    def open(self, session: str, key_id: str) -> None:
        """Adds a session."""
        self._sessions[session] = _Session(key_id=key_id)
        self._served.enter(key_id)

    def close(self, session: str) -> None:
        """Removes a session; what is being drawn for it ends as usual."""
        closed = self._sessions.pop(session)
        if all(other.key_id != closed.key_id for other in self._sessions.values()):
            self._served.leave(closed.key_id)

    def move(self, now: float | int, session: str) -> int:
        """A newer camera of a session; returns its number."""
        moved = self._sessions[session]
        moved.number, moved.moved_at = moved.number + 1, float(now)
        return moved.number

    def next(self, now: float | int, ready: Collection[int], working: Collection[int]) -> list[LiveTurn]:
        """The frames to draw now; they count as being drawn until `done`.

        Args:
            now: seconds of the caller's clock.
            ready: devices that take commands.
            working: devices that carry out a command of a job.
        """
        self._place(ready)
        turns = []
        for device in sorted(ready):
            if device in working and now < self._pauses_until.get(device, -math.inf):
                continue
            turn = self._turn(now, device)
            if turn:
                self._running.setdefault(device, []).append(turn)
                self._sessions[turn.session].turn_at = float(now)
                turns.append(turn)
        return turns

    def done(self, now: float | int, turn: LiveTurn, seconds: float | int, *, is_made: bool) -> None:
        """A frame was drawn, or was not.

        Args:
            now: seconds of the caller's clock.
            turn: from `next`; one that was lost with its device changes nothing.
            seconds: the device was busy.
            is_made: False for a still that gave way, which is tried again.
        """
        running = self._running.get(turn.device, [])
        if turn not in running:
            return
        running.remove(turn)
        self._pauses_until[turn.device] = now + seconds * _pause(self._share)
        session = self._sessions.get(turn.session)
        if session is None:
            return
        self._served.add(session.key_id, seconds)
        if turn.is_still and is_made:
            session.refined = max(session.refined, turn.number)
        elif not turn.is_still:
            session.drawn = max(session.drawn, turn.number)

    def lost(self, device: int) -> None:
        """A device has lost what it was drawing."""
        self._running.pop(device, None)

    def wakes_at(self, now: float | int, ready: Collection[int]) -> float | None:
        """When `next` may have something new without another event; None if it will not."""
        rests = [s.moved_at + self._rest_s for s in self._sessions.values() if s.rests]
        due = [*rests, *(self._pauses_until.get(device, -math.inf) for device in ready)]
        later = [at for at in due if at > now and self._has_work]
        return min(later, default=None)

    @property
    def _has_work(self) -> bool:
        return any(session.moves or session.rests for session in self._sessions.values())

    def _place(self, ready: Collection[int]) -> None:
        """Gives each session without a device the one with the fewest sessions."""
        for session in self._sessions.values():
            if session.device in ready or not ready:
                continue
            crowd = [other.device for other in self._sessions.values()]
            session.device = min(sorted(ready), key=crowd.count)

    def _turn(self, now: float | int, device: int) -> LiveTurn | None:
        """What a device draws next; None for nothing now."""
        running = self._running.get(device, [])
        busy = {turn.session for turn in running if not turn.is_still}
        if any(not turn.is_still for turn in running):
            return None
        mine = {name: s for name, s in self._sessions.items() if s.device == device and name not in busy}
        moving = self._first(name for name, s in mine.items() if s.moves)
        if moving is not None:
            return LiveTurn(device=device, session=moving, number=mine[moving].number, is_still=False)
        if running:
            return None
        resting = self._first(name for name, s in mine.items() if s.rests and now >= s.moved_at + self._rest_s)
        if resting is None:
            return None
        return LiveTurn(device=device, session=resting, number=mine[resting].number, is_still=True)

    def _first(self, names: Iterable[str]) -> str | None:
        """The session whose key was served least, then the one whose last turn was longest ago."""

        def place(name: str) -> tuple[float, float]:
            session = self._sessions[name]
            return self._served.of(session.key_id), session.turn_at

        return min(names, key=place, default=None)


def _pause(share: float) -> float:
    """Seconds of pause for each second of drawing."""
    return (1 - share) / share if share > 0 else math.inf
