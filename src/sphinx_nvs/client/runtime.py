"""What waiting and blocking calls mean for each client: `async_*` for `AsyncClient`, `sync_*` for `Client`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

async_sleep = asyncio.sleep
async_call = asyncio.to_thread
sync_sleep = time.sleep


def sync_call(function: Callable[_P, _T], /, *args: _P.args, **options: _P.kwargs) -> _T:
    """Calls a blocking function; `async_call` does so in a thread."""
    return function(*args, **options)
