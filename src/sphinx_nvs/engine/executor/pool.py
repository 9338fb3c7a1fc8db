"""Devices in processes of their own; a process that ends is replaced.

    start ─► load ─► ready ─► command, report, command, ... ─► dead ─► DeviceLost ─► wait ─► start ...

A process is dead when it ends, says that it cannot load, is silent for `silence_s`, or is at one command for longer
than `command_s`; in the last two cases it is killed. The wait doubles from process to process as long as none of them
carries out a command. Workers end with the pool's process, however that ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq.asyncio

from sphinx_nvs.engine.executor.child import Child
from sphinx_nvs.engine.executor.outbox import Outbox
from sphinx_nvs.engine.executor.socket_folder import new_socket_folder
from sphinx_nvs.engine.executor.wire_codec import MessageError
from sphinx_nvs.engine.executor.worker_messages import Beat, Failed, Loaded
from sphinx_nvs.engine.types.device_setup import DeviceSetup
from sphinx_nvs.engine.types.device_speed import Facts
from sphinx_nvs.engine.types.live import Draw, LiveReport
from sphinx_nvs.engine.types.messages import Command, DeviceLost, DeviceReady, Report
from sphinx_nvs.errors import InputError, SphinxError

POLL_S = 0.1
"""Seconds between two checks whether a silent process still runs."""

START_ATTEMPTS = 3
"""Processes that may end before the first is ready."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """When a worker is killed, and when the next one is started; seconds.

    Args:
        beat_s: interval of its heartbeats.
        silence_s: silence after which it is killed.
        command_s: duration of a command, or of loading, after which it is killed.
        first_wait_s: wait before it is started again.
        longest_wait_s: the longest wait, after many processes that failed to start.
    """

    beat_s: float = 0.5
    silence_s: float = 60.0
    command_s: float = 900.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"timeouts.{name}", f"it is {value:g}", "give a number of seconds above 0")


class PoolExecutor:
    """See `Devices`.

    Args:
        setup: setup of every device.
        devices: number of processes.
        on_facts: called with the facts of a device each time that it has loaded.
        timeouts: see `Timeouts`.
    """

    def __init__(
        self,
        setup: DeviceSetup,
        devices: int = 1,
        on_facts: Callable[[Facts], None] = lambda facts: None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._setup, self._devices, self._on_facts = setup, devices, on_facts
        self._timeouts = timeouts or Timeouts()
        self._outbox = Outbox()
        self._children: dict[int, Child] = {}
        self._starts = self._failed_starts = 0
        self._facts: dict[int, Facts] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> dict[int, int]:
        """Processes that run, by device."""
        return {device: child.pid for device, child in self._children.items() if child.is_alive}

    def begin(self) -> None:
        """Starts the processes, which load while their parent does something else; `start` waits for them."""
        # Of mode 0700 and with a short name: paths of Unix sockets end at about 100 characters.
        self._folder = new_socket_folder()
        self._context = zmq.asyncio.Context()
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The future's exception must count as retrieved, even if nothing awaits it.
        self._first.add_done_callback(lambda first: first.cancelled() or first.exception())
        self._tasks = [asyncio.create_task(self._keep_alive(device)) for device in range(self._devices)]

    def report_facts_to(self, on_facts: Callable[[Facts], None]) -> None:
        """Sets another receiver of devices' facts, and passes it those that were received already."""
        self._on_facts = on_facts
        for facts in list(self._facts.values()):
            on_facts(facts)

    async def start(self) -> None:
        """Starts the processes unless they were started; returns once the first device is ready, the others follow.

        Raises:
            InputError: the preset's models are not here, or do not fit the options.
            SphinxError: `START_ATTEMPTS` processes have ended before any was ready.
        """
        if not self._tasks:
            self.begin()
        try:
            await self._first
        except BaseException:
            await self.close()
            raise

    def submit(self, device: int, command: Command) -> None:
        """Sends a command; returns at once. One for a lost device is dropped: the engine gets `DeviceLost`.

        Raises:
            MessageError: the command cannot become bytes.
        """
        if self._outbox.is_open(device):
            self._children[device].send(command)

    def draw(self, device: int, command: Draw) -> None:
        """Sends a frame of a live session to be drawn; returns at once. One for a lost device is dropped."""
        if self._outbox.is_open(device):
            self._children[device].draw(command)

    async def next_reports(self) -> Sequence[tuple[int, Report | LiveReport]]:
        """Device numbers with reports, once there are some."""
        return await self._outbox.take()

    async def close(self) -> None:
        """Ends the processes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._context.term()
        shutil.rmtree(self._folder, ignore_errors=True)

    # One device -----------------------------------------------------------------------------------------------------

    async def _keep_alive(self, device: int) -> None:
        """Runs one process after another."""
        wait_s = self._timeouts.first_wait_s
        while True:
            worker = await self._run_worker(device)
            self._failed_starts += 1
            if not self._first.done() and (worker.is_hopeless or self._failed_starts >= START_ATTEMPTS):
                # The caller that waits in `start` reports it, and closes the pool.
                self._first.set_exception(worker.error)
                return
            _log.warning("worker lost", extra={"device": device, "why": worker.why})
            self._outbox.put(device, DeviceLost(device=device))
            # One answer shows that the process can work: what killed it was a command, and the next one may go well.
            wait_s = self._timeouts.first_wait_s if worker.answers else min(2 * wait_s, self._timeouts.longest_wait_s)
            await asyncio.sleep(wait_s)

    async def _run_worker(self, device: int) -> _Worker:
        """Runs a process from start to end, and reports its loss."""
        worker = _Worker(device, self._timeouts)
        try:
            child = self._children[device] = self._child(device)
            try:
                await self._listen(worker, child)
            finally:
                await child.end()
        except Exception as error:
            _log.exception("worker could not be run", extra={"device": device})
            worker.why = f"the pool could not run it ({type(error).__name__})"
        return worker

    def _child(self, device: int) -> Child:
        """The next process of a device."""
        self._starts += 1
        environment = environment_of(device, self._devices)
        name = f"{device}-{self._starts}"
        return Child(self._setup, self._folder, name, self._context, environment, self._timeouts.beat_s)

    async def _listen(self, worker: _Worker, child: Child) -> None:
        """Listens to a process until it has ended, and notes why."""
        while not worker.why:
            try:
                message = await child.receive(POLL_S)
            except MessageError as error:
                worker.why = f"it sent what is no message: {error}"
                return
            if message is not None:
                self._take(worker, message)
            elif not child.is_alive:
                worker.why = f"its process ended with status {child.exit_status}"
            else:
                worker.watch()

    def _take(self, worker: _Worker, message: Beat | Loaded | Failed | Report | LiveReport) -> None:
        """Handles a message of a process."""
        worker.note_message()
        if isinstance(message, Beat):
            worker.check_busy(message.busy_s)
        elif isinstance(message, Failed):
            worker.fail(message)
        elif isinstance(message, Loaded):
            self._facts[worker.device] = message.facts
            self._on_facts(message.facts)
            self._outbox.put(worker.device, DeviceReady(device=worker.device, name=message.name))
            if not self._first.done():
                self._first.set_result(None)
        else:
            worker.answers += 1
            self._outbox.put(worker.device, message)


class _Worker:
    """What is known of a running process.

    Args:
        device: its number.
        timeouts: when it counts as dead.
    """

    def __init__(self, device: int, timeouts: Timeouts) -> None:
        self.device, self._timeouts = device, timeouts
        self.answers = 0
        self.why = ""
        self._failed: Failed | None = None
        self._message_s = time.monotonic()

    @property
    def is_hopeless(self) -> bool:
        """Whether another process would fail the same way."""
        return self._failed is not None and self._failed.is_users_fault

    @property
    def error(self) -> SphinxError:
        """The error to raise if no process was ever ready."""
        return LoadError(self.why) if self.is_hopeless else SphinxError(f"no worker became ready: {self.why}")

    def note_message(self) -> None:
        """Notes that a message arrived."""
        self._message_s = time.monotonic()

    def watch(self) -> None:
        """Notes that it is dead if it has been silent for too long."""
        silent_s = time.monotonic() - self._message_s
        if silent_s > self._timeouts.silence_s:
            self.why = f"it was silent for {silent_s:.0f} s"

    def check_busy(self, busy_s: float) -> None:
        """Notes that it is dead if its command takes too long."""
        if busy_s > self._timeouts.command_s:
            self.why = f"it was at one command for {busy_s:.0f} s"

    def fail(self, message: Failed) -> None:
        """Notes that it cannot load."""
        self._failed, self.why = message, message.sentence


class LoadError(SphinxError):
    """A worker could not load its models, and another would fail too: the configuration is wrong."""

    exit_code = 2
    http_status = 422


KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Variables with the number of cached kernels for shapes that may recur: oneDNN's, and PyTorch's older one."""

MOST_KERNELS = 128
"""In each of these caches. A request has some dozens of shapes; but sparse calls of other requests have others, and by
default a worker grows for hours, until it has 1024 of them twice."""


def environment_of(device: int, devices: int) -> dict[str, str]:
    """What is added to a worker's environment: its own GPU, its share of the cores, its caches.

    Variables of the parent are not overwritten.
    """
    made = {name: str(MOST_KERNELS) for name in KERNEL_CACHES if name not in os.environ}
    if devices == 1:
        return made
    if "OMP_NUM_THREADS" not in os.environ:
        # Each process would otherwise take all cores, and they would fight for them.
        made["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // devices))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(gpu) for gpu in range(devices)] if visible is None else [gpu for gpu in visible.split(",") if gpu]
    if gpus:
        made["CUDA_VISIBLE_DEVICES"] = gpus[device % len(gpus)]
    return made
