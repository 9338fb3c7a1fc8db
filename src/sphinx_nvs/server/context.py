"""State that the routes of one app share: the engine, the settings, and the callers' counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from sphinx_nvs.errors import SphinxError
from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.backend import Backend
from sphinx_nvs.server.limits import RateLimiter, Streams, Uploads
from sphinx_nvs.server.scenes.ingest_pool import IngestPool
from sphinx_nvs.server.scenes.posing_jobs import PosingJobs
from sphinx_nvs.server.server_config import ServerConfig

KEY_CHECK_S = 5.0
"""Longest delay after which the first key that is created closes the server to callers without one, seconds."""

STREAM_CHECK_S = 2.0
"""Longest delay after which a revoked key's streams end, seconds."""

STORE_CHECK_S = 2.0
"""Interval at which readiness probes, however many, have the store checked, seconds."""


@dataclass(kw_only=True)
class Context:
    """Shared state of one app.

    Args:
        config: settings.
        engine: None before it is open.
        clock: monotonic seconds.
        is_draining: whether new work is refused.
        registry: Prometheus metrics.
        streams: counts open event streams.
        live_sessions: counts open live sessions.
        adding: held from the check of a quota until the scene's row exists.
    """

    config: ServerConfig
    engine: Backend | None = None
    clock: Callable[[], float] = time.monotonic
    is_draining: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    streams: Streams = field(default_factory=Streams)
    live_sessions: Streams = field(default_factory=lambda: Streams("live sessions"))
    adding: asyncio.Lock = field(default_factory=asyncio.Lock)
    _key_check: tuple[float, bool] | None = None
    _valid_keys: tuple[float, frozenset[str]] | None = None
    _store_check: tuple[float, str] | None = None

    def __post_init__(self) -> None:
        self.rates = RateLimiter(self.clock)
        self.uploads = Uploads(self.config.upload)
        self.ingest = IngestPool(self.config.upload)
        self.posing = PosingJobs(self.config.upload)

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

    async def is_valid(self, key_id: str) -> bool:
        """Returns whether a key has not been revoked, checked at most every `STREAM_CHECK_S` seconds for all keys."""
        now = self.clock()
        if self._valid_keys is None or now - self._valid_keys[0] > STREAM_CHECK_S:
            self._valid_keys = (now, await self.backend.library.valid_keys())
        return key_id in self._valid_keys[1]

    async def store_trouble(self) -> str:
        """Returns why nothing can be stored, empty if all is well; checked at most every `STORE_CHECK_S` seconds."""
        now = self.clock()
        if self._store_check is None or now - self._store_check[0] > STORE_CHECK_S:
            self._store_check = (now, await self._checked_store())
        return self._store_check[1]

    async def _checked_store(self) -> str:
        try:
            await self.backend.library.check()
        except SphinxError as error:
            return str(error)
        return ""

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
