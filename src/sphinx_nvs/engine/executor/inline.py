"""Devices in the engine's own process, a thread for each: for tests, and for one user who wants no second process.

Such a device cannot be lost, and what kills it kills the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sphinx_nvs.engine.executor.device_maker import make_device
from sphinx_nvs.engine.executor.outbox import Outbox
from sphinx_nvs.engine.types.device_setup import DeviceSetup, OpenedDevice
from sphinx_nvs.engine.types.device_speed import Facts
from sphinx_nvs.engine.types.live import Draw, LiveReport
from sphinx_nvs.engine.types.messages import Command, DeviceReady, Report


class InlineExecutor:
    """See `Devices`.

    Args:
        setup: setup of every device.
        devices: number of devices.
        on_facts: called with the facts of a device before `start` returns.
    """

    def __init__(
        self, setup: DeviceSetup, devices: int = 1, on_facts: Callable[[Facts], None] = lambda facts: None
    ) -> None:
        self._setup, self._on_facts = setup, on_facts
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"device-{number}") for number in range(devices)]
        self._painters = [ThreadPoolExecutor(1, thread_name_prefix=f"live-{number}") for number in range(devices)]
        self._last_turns = [0] * devices
        self._opened: dict[int, OpenedDevice] = {}
        self._outbox = Outbox()

    async def start(self) -> None:
        """Loads models; returns once every device is ready.

        Raises:
            InputError: see `open_device`.
        """
        self._loop = asyncio.get_running_loop()
        for number, thread in enumerate(self._threads):
            opened = self._opened[number] = await self._loop.run_in_executor(thread, make_device, self._setup)
            self._on_facts(opened.facts)
            self._outbox.put(number, DeviceReady(device=number, name=opened.name))

    def submit(self, device: int, command: Command) -> None:
        """Sends a command; returns at once."""
        self._threads[device].submit(self._work, device, command)

    def draw(self, device: int, command: Draw) -> None:
        """Sends a frame of a live session to be drawn; returns at once."""
        self._last_turns[device] = command.turn
        self._painters[device].submit(self._paint, device, command)

    async def next_reports(self) -> Sequence[tuple[int, Report | LiveReport]]:
        """Device numbers with reports, once there are some."""
        return await self._outbox.take()

    async def close(self) -> None:
        """Waits for the commands that are being carried out; those that wait are forgotten."""
        threads = [*self._threads, *self._painters]
        for thread in threads:
            thread.shutdown(wait=False, cancel_futures=True)
        for thread in threads:
            await asyncio.to_thread(thread.shutdown, wait=True)

    def _work(self, device: int, command: Command) -> None:
        """Carries out a command; in the device's thread."""
        report = self._opened[device].device.do(command)
        self._loop.call_soon_threadsafe(self._outbox.put, device, report)

    def _paint(self, device: int, command: Draw) -> None:
        """Draws a frame; in the device's second thread."""
        report = self._opened[device].painter.draw(command, lambda: self._last_turns[device] != command.turn)
        self._loop.call_soon_threadsafe(self._outbox.put, device, report)
