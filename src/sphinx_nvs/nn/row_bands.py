"""Compiled kernels over bands of rows, one band a thread.

A kernel is compiled by numba without the interpreter's lock and writes the rows `start` to `stop` of its outputs, each
by itself: how many bands there are changes no bit of the result. There are as many threads as torch computes with.

Numba keeps its machine code beside the sources, in the user's cache or in `NUMBA_CACHE_DIR`: only the first run on a
machine compiles, and says so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numba import njit
from numba.core.event import Event, Listener, register
from numba.core.runtime.nrt import rtsys
from torch import Tensor

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

_LOGGER = logging.getLogger(__name__)

FEWEST_ROWS = 8
"""A band of fewer rows is not worth a thread."""


class _Announcement(Listener):
    """Says once that code is compiled: seconds in which nothing else happens."""

    said = False

    def on_start(self, event: Event) -> None:
        """Called before anything is compiled; machine code that is read from the cache is not compiled."""
        if not self.said:
            self.said = True
            _LOGGER.warning("compiling loops for this processor, once; later runs start at once")

    def on_end(self, event: Event) -> None:
        """Called after something was compiled."""


register("numba:compile", _Announcement())


def compiled(function: Kernel) -> Kernel:
    """Compiles a kernel at its first call."""
    return _compiled(function)


def inlined(function: Kernel) -> Kernel:
    """Makes a function part of the kernels that call it."""
    return _compiled(function, inline="always")


def _compiled(function: Kernel, **options: Any) -> Kernel:
    # Without NaNs and signed zeros, comparisons and sums of products become vector instructions.
    options |= {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "nnan"}}
    try:
        made: Kernel = njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder for machine code can be written: it is compiled in every process.
        made = njit(**options)(function)
    else:
        cache: Any = made._cache  # type: ignore[attr-defined]
        # Its parts are numba's own affair: where they have other names, it reads as it does by itself.
        if hasattr(cache, "_load_overload") and hasattr(cache, "_guard_against_spurious_io_errors"):
            cache.load_overload = partial(_read, cache)
    return made


def _read(cache: Any, signature: Any, target: Any) -> Any:
    """Machine code from the cache, or None.

    Numba's own method first loads all that compiling may need, SciPy's linear algebra among it: half a second at every
    start. Machine code needs the allocator alone; numba loads the rest itself where it compiles.
    """
    rtsys.initialize(target)
    with cache._guard_against_spurious_io_errors():
        return cache._load_overload(signature, target)
    return None


def in_bands(kernel: Callable[..., None], rows: int, *arguments: Any, fewest: int = FEWEST_ROWS) -> None:
    """Calls `kernel(start, stop, *arguments)` for bands that cover `rows`, and waits for all of them.

    Args:
        kernel: the compiled function.
        rows: how many there are, of pixels, blocks, planes or views.
        arguments: tensors on the CPU, which the kernel sees as contiguous arrays; those that it writes must be
            contiguous. Numbers become float32, integers stay.
        fewest: rows of the smallest band.
    """
    given = [_argument(argument) for argument in arguments]
    bands = max(1, min(torch.get_num_threads(), rows // fewest))
    if bands == 1:
        kernel(0, rows, *given)
        return
    edges = [rows * band // bands for band in range(bands + 1)]
    futures = [_threads(bands).submit(kernel, start, stop, *given) for start, stop in pairwise(edges)]
    for future in futures:
        future.result()


def interleaved(images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V H W 4"]:
    """Images with the colours of a pixel beside one another, as kernels sample them; the last channel is unused."""
    return F.pad(images.permute(0, 2, 3, 1), (0, 1)).contiguous()


def _argument(value: Tensor | float | int) -> Any:
    if isinstance(value, Tensor):
        return value.contiguous().numpy()
    return value if isinstance(value, int) else np.float32(value)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="rows")


# A forked process has none of its parent's threads: work given to their pool would wait for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)
