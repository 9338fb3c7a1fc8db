"""What the engine reports about itself. Values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that makes frames.

    Args:
        name: name on its card.
        about: one sentence about it.
        part: its part of the pair.
        licence: its name.
        url: address of the licence.
    """

    name: str
    about: str
    part: str
    licence: str
    url: str


@dataclass(frozen=True, kw_only=True)
class DeviceStatus:
    """A device.

    Args:
        index: its number.
        name: for people; "" before it was ready for the first time.
        is_ready: whether its models are loaded.
        is_busy: whether it is at work.
        held: units in its memory.
        work_s: predicted seconds left of those.
    """

    index: int
    name: str
    is_ready: bool
    is_busy: bool
    held: int
    work_s: float


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How busy the engine is.

    Args:
        devices: each one.
        queued: jobs for which nothing was done yet.
        running: jobs that have started and not ended.
        max_queue: largest number of unfinished jobs.
        wait_s: seconds that a new job without a deadline would wait for its first refinement.
        backlog_s: device seconds of everything that is left.
        pressure: how far quality is being lowered, 0 (not at all) .. 1 (a job is at its floor).
        slo_attainment: share of jobs with a deadline that met it, since the start.
    """

    devices: tuple[DeviceStatus, ...]
    queued: int
    running: int
    max_queue: int
    wait_s: float
    backlog_s: float
    pressure: float
    slo_attainment: float
