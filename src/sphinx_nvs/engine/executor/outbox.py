"""Reports that the engine has not received yet, in order, without those of a process that has ended.

    ... reports of one process, DeviceLost | DeviceReady, reports of the next process ...

A batch ends before a `DeviceReady`: the engine has processed the loss before it can send commands to the next process,
and until then commands are dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from sphinx_nvs.engine.types.live import LiveReport
from sphinx_nvs.engine.types.messages import DeviceLost, DeviceReady, Report


class Outbox:
    """Reports that the engine has not received yet; used by one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Report | LiveReport]] = deque()
        self._filled = asyncio.Event()
        self._open: set[int] = set()

    def is_open(self, device: int) -> bool:
        """Whether the engine knows this process of the device, so that commands for the device are for this process."""
        return device in self._open

    def put(self, device: int, report: Report | LiveReport) -> None:
        """Adds a report."""
        if isinstance(report, DeviceLost):
            self._open.discard(device)
            # Reports after a `DeviceReady` that the engine never received are dropped with it.
            self._waiting = deque(each for each in self._waiting if each[0] != device or not _is_ready(each[1]))
        self._waiting.append((device, report))
        self._filled.set()

    async def take(self) -> Sequence[tuple[int, Report | LiveReport]]:
        """Reports, once there are some."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        batch = [self._next()]
        while self._waiting and not _is_ready(self._waiting[0][1]):
            batch.append(self._next())
        return batch

    def _next(self) -> tuple[int, Report | LiveReport]:
        """The oldest report."""
        device, report = self._waiting.popleft()
        if _is_ready(report):
            self._open.add(device)
        return device, report


def _is_ready(report: Report | LiveReport) -> bool:
    return isinstance(report, DeviceReady)
