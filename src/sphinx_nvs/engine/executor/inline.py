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

    async def next_reports(self) -> Sequence[tuple[int, Report]]:
        """Device numbers with reports, once there are some."""
        return await self._outbox.take()

    async def close(self) -> None:
        """Waits for the commands that are being carried out; those that wait are forgotten."""
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        for thread in self._threads:
            await asyncio.to_thread(thread.shutdown, wait=True)

    def _work(self, device: int, command: Command) -> None:
        """Carries out a command; in the device's thread."""
        report = self._opened[device].device.do(command)
        self._loop.call_soon_threadsafe(self._outbox.put, device, report)
