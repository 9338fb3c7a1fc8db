"""Compiled kernels over bands of rows, one band a thread.

A kernel is compiled by numba without the interpreter's lock and writes the rows `start` to `stop` of its outputs, each
by itself: how many bands there are changes no bit of the result. There are as many threads as torch computes with.

Numba keeps its machine code beside the sources (or in `NUMBA_CACHE_DIR`): only the first run on a machine compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

FEWEST_ROWS = 8
"""A band of fewer rows is not worth a thread."""


def in_bands(kernel: Callable[..., None], rows: int, *arguments: Any) -> None:
    """Calls `kernel(start, stop, *arguments)` for bands that cover `rows`, and waits for all of them."""
    bands = max(1, min(torch.get_num_threads(), rows // FEWEST_ROWS))
    if bands == 1:
        kernel(0, rows, *arguments)
        return
    edges = [rows * band // bands for band in range(bands + 1)]
    futures = [
        _threads(bands).submit(kernel, start, stop, *arguments) for start, stop in zip(edges, edges[1:], strict=False)
    ]
    for future in futures:
        future.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="rows")
