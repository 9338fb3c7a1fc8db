"""pycolmap as this package uses it: on the CPU, with the caller's signal handlers left in place.

Its log on standard error cannot be turned off; `muted` keeps it from a terminal.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TextIO


@lru_cache(maxsize=1)
def colmap() -> Any:
    """The module; it has no types of its own.

    Its logger takes over SIGTERM when it is imported, which would turn a stop into an abort with a stack trace.
    """
    previous = signal.getsignal(signal.SIGTERM)
    import pycolmap

    if threading.current_thread() is threading.main_thread() and previous is not None:
        signal.signal(signal.SIGTERM, previous)
    return pycolmap


def num_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def muted() -> Iterator[TextIO]:
    """Standard error of the whole process goes nowhere; yields a file that still reaches it."""
    sys.stderr.flush()
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        with os.fdopen(os.dup(kept), "w") as still_heard:
            yield still_heard
    finally:
        os.dup2(kept, 2)
        os.close(null)
        os.close(kept)
