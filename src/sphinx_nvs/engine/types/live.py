"""The messages of live sessions: a camera goes down, one frame comes back, beside the commands of jobs.

A device draws one frame at a time, in a thread of its own, so that a job's long command does not hold it up. A still
that is being refined gives way to the next message: it is answered by `NotDrawn` without a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.engine.types.jobs import Matrix


@dataclass(frozen=True, kw_only=True)
class LiveCamera:
    """A camera of a live session.

    Args:
        number: the client's number of it.
        c2w: pose, 4x4, OpenCV axes, in the coordinates of the stored scene.
        K: intrinsics, 3x3, pixels.
        height: height of the frame, pixels.
        width: width of the frame, pixels.
        quality: to refine stills for, 0..1.
    """

    number: int
    c2w: Matrix
    K: Matrix
    height: int
    width: int
    quality: float


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Draw one frame.

    Args:
        session: the live session.
        turn: number of the command, unique on its device.
        scene_path: folder of the stored scene, readable by the device.
        camera: what to draw.
        is_still: whether the frame is refined, which may be interrupted.
    """

    session: str
    turn: int
    scene_path: str
    camera: LiveCamera
    is_still: bool


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A frame.

    Args:
        session: the live session.
        turn: see `Draw`.
        jpeg: the frame as a file.
        active_share: share of cells that were refined; 0 for a frame of the regressor.
        seconds: the device was busy.
    """

    session: str
    turn: int
    jpeg: bytes
    active_share: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class NotDrawn:
    """A frame that was not made.

    Args:
        session: the live session.
        turn: see `Draw`.
        sentence: why, for the user; empty if it gave way to another.
        seconds: the device was busy.
    """

    session: str
    turn: int
    sentence: str
    seconds: float


LiveReport = Drawn | NotDrawn
