"""Time of a block of work and of its stages; waits for the device before reading the clock.

CUDA calls are asynchronous: the clock is read only after they finish. Nothing here accesses the disk.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

CLOCKS = ("wall", "cpu")
"""`cpu` is the process's own CPU time: the only repeatable one on a shared machine."""


def synchronise() -> None:
    """Waits for the GPU, if one is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass
class Stopwatch:
    """Seconds by both clocks, available once the measured block is left.

    Args:
        wall_s: elapsed seconds.
        cpu_s: CPU seconds of this process, over all its threads.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0

    @staticmethod
    @contextmanager
    def running() -> Iterator[Stopwatch]:
        """Measures a block."""
        watch = Stopwatch()
        synchronise()
        wall, cpu = time.perf_counter(), time.process_time()
        yield watch
        synchronise()
        watch.wall_s, watch.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


@dataclass
class StageTimes:
    """Seconds of each stage of a pipeline; pass it as the pipeline's `progress`."""

    stages_s: dict[str, float] = field(default_factory=dict)
    _started: dict[str, float] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Implements `pipeline.Progress`."""
        if done == 0:
            synchronise()
            self._started[stage] = time.perf_counter()
        elif done == total:
            synchronise()
            self.stages_s[stage] = time.perf_counter() - self._started[stage]
