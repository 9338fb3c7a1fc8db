"""What a server uses while it works: memory, files, sockets, jobs; and whether any of it grows.

Growth is the slope of a line through the samples of the second half (least squares): the first half fills caches.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import numpy as np
import psutil

from sphinx_nvs.load_testing.server_process import ServerProcess

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a server uses at one time.

    Args:
        at_s: seconds after the start.
        server_mb: its resident memory, MiB.
        worker_mb: resident memory of its workers, MiB.
        fds: files and sockets that it has open.
        sockets: connections of clients.
        threads: number of its threads.
        streams: number of open event streams.
        unfinished: jobs.
    """

    at_s: float
    server_mb: float
    worker_mb: float
    fds: int
    sockets: int
    threads: int
    streams: int
    unfinished: int


def metrics_of(text: str) -> dict[str, float]:
    """Prometheus's text form as sums over labels, by name."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            bare = name.split("{", 1)[0]
            found[bare] = found.get(bare, 0.0) + float(value)
    return found


@dataclass
class Watcher:
    """Takes samples of a server.

    Args:
        server: the watched server.
        samples: the samples until now.
        missed: samples that could not be taken.
    """

    server: ServerProcess
    samples: list[Sample] = field(default_factory=list)
    missed: int = 0
    began: float = field(default_factory=time.monotonic)

    async def sample(self) -> Sample | None:
        """Takes a sample; None if the server did not answer."""
        try:
            async with httpx.AsyncClient(base_url=self.server.url, timeout=10.0) as http:
                capacity = (await http.get("/v1/capacity")).raise_for_status().json()
        except httpx.HTTPError:
            self.missed += 1
            return None
        process = psutil.Process(self.server.pid)
        connections = [c for c in process.net_connections("tcp") if c.status != psutil.CONN_LISTEN]
        sample = Sample(
            at_s=time.monotonic() - self.began,
            server_mb=process.memory_info().rss / MIB,
            worker_mb=sum(map(_rss_mb, self.server.workers())),
            fds=process.num_fds(),
            sockets=len(connections),
            threads=process.num_threads(),
            streams=capacity["streams"],
            unfinished=capacity["queued"] + capacity["running"],
        )
        self.samples.append(sample)
        return sample

    def growth_per_h(self, name: str) -> float:
        """Growth of a field of the samples over the second half; 0 for fewer than three samples."""
        half = self.samples[len(self.samples) // 2 :]
        return slope([s.at_s for s in half], [float(getattr(s, name)) for s in half]) * 3600


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the line that fits these points best; 0 for fewer than three."""
    if len(times) < 3 or np.ptp(times) == 0:
        return 0.0
    return float(np.polyfit(np.asarray(times) - times[0], values, 1)[0])


def _rss_mb(pid: int) -> float:
    """Resident memory of a process; 0 if it has ended."""
    with contextlib.suppress(psutil.Error):
        return float(psutil.Process(pid).memory_info().rss / MIB)
    return 0.0
