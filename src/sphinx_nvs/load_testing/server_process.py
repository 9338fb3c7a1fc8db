"""A server in a process of its own, to be started, watched, killed and started again on the same folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

from sphinx_nvs.errors import SphinxError

WORKER = "sphinx_nvs.engine.executor.worker"
"""The module that workers run, by which they are known among a server's children."""

FORKSERVERS = 0.2
"""Share of kills of decoding processes that hit the process that they are forked from."""

POLL_S = 0.05
"""Seconds between two checks."""


class ServerProcess:
    """`sphinx-nvs serve` on one folder and one port, started again as often as necessary.

    Args:
        folder: the server's folder.
        options: further command line arguments.
        log: file that standard error is appended to; None for `server.log` beside the folder.
    """

    def __init__(self, folder: Path, options: Sequence[str] = (), log: Path | None = None) -> None:
        self.folder, self._options = folder, tuple(options)
        self.log = log or folder.parent / f"{folder.name}.log"
        self.port = free_port()
        self.lives = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the server, the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server.

        Raises:
            SphinxError: it was never started.
        """
        if self._process is None:
            raise SphinxError("the server was never started")
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Exit status of its last process; negative for a signal, None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Starts the server in a process group of its own; returns at once."""
        self.lives += 1
        words = ["serve", "--port", str(self.port), "--folder", str(self.folder), *self._options]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sphinx_nvs.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                # So that a signal to the group reaches the workers, and none that this terminal sends does.
                start_new_session=True,
            )

    def workers(self) -> list[int]:
        """Processes of its devices."""
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(self.pid).children() if is_worker(child.pid)]
        return []

    def kill_worker(self) -> int | None:
        """Kills a worker (SIGKILL); its process, or None if there was none."""
        for pid in self.workers()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return pid
        return None

    def kill_decoder(self, rng: random.Random) -> int | None:
        """Kills a process that decodes or poses an upload; see `kill_decoder_of`."""
        return kill_decoder_of(self.pid, rng)

    def kill(self, *, with_workers: bool) -> list[int]:
        """Kills the server (SIGKILL).

        Args:
            with_workers: whether its workers are killed in the same moment; if not, they have to notice.

        Returns:
            Its workers' processes.
        """
        workers = self.workers()
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if with_workers else os.kill)(self.pid, signal.SIGKILL)
            self._wait(30)
        return workers

    def stop(self, within_s: float | int = 60.0) -> int | None:
        """Ends the server (SIGTERM), and kills it if it does not end; returns its exit status."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._wait(within_s)
                return self.exit_status
            self.kill(with_workers=True)
        return self.exit_status

    def _wait(self, seconds: float | int) -> None:
        if self._process is not None:
            self._process.wait(seconds)

    async def ready(self, within_s: float | int = 120.0) -> float:
        """Returns once it takes requests, after these seconds.

        Raises:
            SphinxError: it has ended, or does not become ready in time.
        """
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=self.url, timeout=2.0) as http:
            while time.monotonic() - began < within_s:
                if not self.is_alive:
                    raise SphinxError(f"the server ended with status {self.exit_status}; see {self.log}")
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/readyz")).status_code == 200:
                        return time.monotonic() - began
                await asyncio.sleep(POLL_S)
        raise SphinxError(f"the server is not ready after {within_s:g} s; see {self.log}")


def decoders_of(server: int) -> tuple[list[int], list[int]]:
    """The processes that decode and pose a server's uploads at this moment, and those that these are forked from."""
    forking: list[int] = []
    decoding: list[int] = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(server).children():
            with contextlib.suppress(psutil.Error):
                if any("forkserver" in word for word in child.cmdline()):
                    forking.append(child.pid)
                    decoding += [each.pid for each in child.children()]
    return decoding, forking


def kill_decoder_of(server: int, rng: random.Random) -> int | None:
    """Kills a process that decodes or poses an upload, or now and then what they are forked from (SIGKILL).

    Args:
        server: process id of a server.
        rng: chooses.

    Returns:
        Its process, or None if nothing is decoded at this moment.
    """
    decoding, forking = decoders_of(server)
    if not decoding:
        return None
    pid = rng.choice(forking if rng.random() < FORKSERVERS else decoding)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return pid
    return None


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        # The port is free again from here on; the server takes it a moment later, and keeps it after restarts.
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_worker(pid: int) -> bool:
    """Whether a process runs, and is a device's."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        # A killed child stays listed until its parent has waited for it.
        return process.status() != psutil.STATUS_ZOMBIE and WORKER in process.cmdline()
    return False
