"""State that the routes of one app share: the engine, the settings, and the callers' counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.backend import Backend
from sphinx_nvs.server.limits import RateLimiter, Streams, Uploads
from sphinx_nvs.server.server_config import ServerConfig

KEY_CHECK_S = 5.0
"""Longest delay after which the first key that is created closes the server to callers without one, seconds."""


@dataclass(kw_only=True)
class Context:
    """Shared state of one app.

    Args:
        config: settings.
        engine: None before it is open.
        clock: monotonic seconds.
        is_draining: whether new work is refused.
        registry: Prometheus metrics.
        ingest: admits one upload at a time to processing, which takes much memory.
        streams: counts open event streams.
        uploads: counts uploads in progress.
    """

    config: ServerConfig
    engine: Backend | None = None
    clock: Callable[[], float] = time.monotonic
    is_draining: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    ingest: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    streams: Streams = field(default_factory=Streams)
    uploads: Uploads = field(default_factory=Uploads)
    _key_check: tuple[float, bool] | None = None

    def __post_init__(self) -> None:
        self.rates = RateLimiter(self.clock)

    @property
    def backend(self) -> Backend:
        """The engine.

        Raises:
            ProblemError: 503 before it is open.
        """
        if self.engine is None:
            raise ProblemError(503, "The server is starting.", headers=retry_after(1))
        return self.engine

    def check_open(self) -> None:
        """Raises ProblemError, 503, while the server shuts down."""
        if self.is_draining:
            raise ProblemError(503, "The server is shutting down; retry when it is back.", headers=retry_after(10))

    async def requires_keys(self) -> bool:
        """Returns whether requests need an API key."""
        if self.config.require_keys is not None:
            return self.config.require_keys
        return not self.config.is_loopback or await self._has_had_keys()

    async def _has_had_keys(self) -> bool:
        """Returns whether a key was ever created, checked at most every `KEY_CHECK_S` seconds."""
        now = self.clock()
        # Once a key exists the answer never changes back: revoked keys count, or revoking the last one would open the
        # server.
        if self._key_check is None or (not self._key_check[1] and now - self._key_check[0] > KEY_CHECK_S):
            self._key_check = (now, await self.backend.library.has_keys())
        return self._key_check[1]


def context_of(connection: HTTPConnection) -> Context:
    """Returns the context of the app that a request came to."""
    context = connection.app.state.context
    assert isinstance(context, Context)
    return context
