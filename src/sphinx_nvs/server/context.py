"""What routes share: the engine, the settings, who is counted how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from sphinx_nvs.server.api.problems import ProblemError, retry_after
from sphinx_nvs.server.backend import Backend
from sphinx_nvs.server.config import ServerConfig
from sphinx_nvs.server.limits import Buckets, Streams, Uploads

KEYS_SEEN_S = 5.0
"""How long it may take until the first key that is made closes the server to everybody else."""


@dataclass(kw_only=True)
class Context:
    """One app's shared things.

    Args:
        config: settings.
        engine: None before it is open.
        clock: seconds, never going back.
        is_draining: whether nothing new is taken on.
        intake: lets one upload be understood at a time, for that takes memory.
    """

    config: ServerConfig
    engine: Backend | None = None
    clock: Callable[[], float] = time.monotonic
    is_draining: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    intake: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    streams: Streams = field(default_factory=Streams)
    uploads: Uploads = field(default_factory=Uploads)
    _keys_seen: tuple[float, bool] | None = None

    def __post_init__(self) -> None:
        self.buckets = Buckets(self.clock)

    @property
    def backend(self) -> Backend:
        """The engine.

        Raises:
            ProblemError: 503, it is not open.
        """
        if self.engine is None:
            raise ProblemError(503, "The server is starting.", headers=retry_after(1))
        return self.engine

    def check_open(self) -> None:
        """Raises ProblemError, 503, if nothing new is taken on."""
        if self.is_draining:
            raise ProblemError(503, "The server is closing; ask again when it is back.", headers=retry_after(10))

    async def requires_keys(self) -> bool:
        """Whether requests need an API key."""
        if self.config.require_keys is not None:
            return self.config.require_keys
        return not self.config.is_loopback or await self._has_keys()

    async def _has_keys(self) -> bool:
        """Whether there is a key, looked up now and then; once there is one, there is no way back but a restart."""
        now = self.clock()
        if self._keys_seen is None or (not self._keys_seen[1] and now - self._keys_seen[0] > KEYS_SEEN_S):
            self._keys_seen = (now, await self.backend.library.has_keys())
        return self._keys_seen[1]


def context_of(connection: HTTPConnection) -> Context:
    """The context of the app that a request came to."""
    context = connection.app.state.context
    assert isinstance(context, Context)
    return context
