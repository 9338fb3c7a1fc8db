"""Processes that make data while the device trains: each writes to the stream's folder and stops when it is ahead.

A worker is the same program started again with other arguments. It ends by itself when its parent is gone, so that a
run that is killed leaves nothing behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sphinx_nvs.training.packets import make_packet, save_packet
from sphinx_nvs.training.samples import make_sample, save_samples
from sphinx_nvs.training.stream import REAL, WORLDS

AHEAD = 3
"""Files of its own that a worker leaves unread before it waits."""
REAL_AT_ONCE = 4
# Far above the numbers of the packets' worlds, so that no world is learnt from in both forms.
_REAL_SEEDS = 50_000_000


def feed_worlds(folder: Path, index: int, of: int, *, first: int, worlds: int, views: int) -> None:
    """Writes packets `first + index`, `first + index + of`, … until the parent is gone."""
    number = first + index
    while _has_room(folder, f"{WORLDS}-*.safetensors", AHEAD * of):
        save_packet(
            make_packet(number, num_worlds=worlds, num_views=views), folder / f"{WORLDS}-{number:07d}.safetensors"
        )
        number += of


def feed_real(folder: Path, index: int, of: int, *, first: int, size: int, views: int) -> None:
    """Writes stacks of samples rendered by the real plane sweep, in seeds of their own, until the parent is gone."""
    number = first + index
    while _has_room(folder, f"{REAL}{size}-*.safetensors", AHEAD * of):
        seeds = range(_REAL_SEEDS + number * REAL_AT_ONCE, _REAL_SEEDS + (number + 1) * REAL_AT_ONCE)
        made = [make_sample(seed, num_views=views, size=size, real_share=1.0) for seed in seeds]
        samples = [sample for sample in made if sample is not None]
        if samples:
            save_samples(samples, folder / f"{REAL}{size}-{number:07d}.safetensors")
        number += of


def _has_room(folder: Path, pattern: str, most: int) -> bool:
    """Waits until fewer than `most` files lie unread; False once the parent is gone."""
    parent = int(os.environ["SPHINX_FEED_PARENT"])
    # The system gives an orphan another parent, so a changed id says that the parent is gone.
    while os.getppid() == parent:
        if sum(1 for _ in folder.glob(pattern)) < most:
            return True
        time.sleep(0.1)
    return False


@contextmanager
def feeding(program: Path, folder: Path, arguments: list[list[str]]) -> Iterator[None]:
    """Runs one worker per list of arguments while the context lasts; their words go to `folder`/feed-K.log.

    Args:
        program: the script to start again.
        folder: the stream's folder, made if missing; what lies in it from an earlier run is thrown away.
        arguments: arguments of each worker, after `program feed --folder FOLDER`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [*folder.glob("*.safetensors"), *folder.glob("*.partial")]:
        stale.unlink()
    environment = os.environ | {
        # Workers share the CPUs by their number, not by their threads, and none may take memory of the GPU.
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "SPHINX_FEED_PARENT": str(os.getpid()),
    }
    workers = []
    try:
        for index, extra in enumerate(arguments):
            with (folder / f"feed-{index}.log").open("w") as log:
                command = [sys.executable, str(program), "feed", "--folder", str(folder), *extra]
                workers.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
