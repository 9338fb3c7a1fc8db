"""The parts of an engine: a store of rows, a store of files, devices, prices, a scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.scheduler.scheduler import Scheduler
from sphinx_nvs.engine.store import JobStore
from sphinx_nvs.engine.types.live import Draw, LiveReport
from sphinx_nvs.engine.types.messages import Command, Report
from sphinx_nvs.engine.types.prices import Pricing


@runtime_checkable
class Devices(Protocol):
    """See `engine.executor`: devices do one command at a time, in order, and answer each with one report.

    Frames of live sessions are drawn meanwhile, one at a time, and answered in the same way.
    """

    async def start(self) -> None:
        """Loads models; each device reports `DeviceReady`."""
        ...

    def submit(self, device: int, command: Command) -> None:
        """Sends a command; returns at once."""
        ...

    def draw(self, device: int, command: Draw) -> None:
        """Sends a frame of a live session to be drawn beside the commands; returns at once."""
        ...

    async def next_reports(self) -> Sequence[tuple[int, Report | LiveReport]]:
        """Device numbers with reports, once there are some."""
        ...

    async def close(self) -> None:
        """Ends the devices."""
        ...


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of an engine.

    Args:
        store: rows of jobs, units, events and scenes.
        artifacts: files by the hash of their content.
        scheduler: decides.
        executor: the devices.
        pricing: prices of requests.
        close: releases the stores.
    """

    store: JobStore
    artifacts: ArtifactStore
    scheduler: Scheduler
    executor: Devices
    pricing: Pricing
    close: Callable[[], None] = lambda: None
