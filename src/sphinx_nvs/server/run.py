"""Runs a server until it is told to stop, and then lets unfinished jobs end.

SIGTERM, SIGINT ─► nothing new is taken on (503, /readyz too), streams and answers go on
─► all jobs ended, or `drain_s` is over ─► connections close ─► the engine closes
again           ─► at once; unfinished jobs go on at the next start in any case
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType

import structlog
import uvicorn

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.engine import Engine
from sphinx_nvs.server.app import Factory, create_app
from sphinx_nvs.server.backend import Backend
from sphinx_nvs.server.config import ServerConfig
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.listening import bound_socket, url_of

CLOSING_S = 5
"""How long open connections are waited for once draining is over, seconds."""

_log = structlog.get_logger("sphinx_nvs.server")


def serve(
    engine: EngineConfig | Factory,
    config: ServerConfig | None = None,
    announce: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until a signal says stop.

    Args:
        engine: how the engine is set up, or what opens one.
        config: settings; None for the usual ones.
        announce: called with the server's address once requests are answered.

    Raises:
        InputError: the address or the engine's folder cannot be used.
    """
    config = config or ServerConfig()
    with bound_socket(config) as listening:
        asyncio.run(serving(_opener(engine), config, listening, announce))


def _opener(engine: EngineConfig | Factory) -> Factory:
    """What opens the engine."""
    if not isinstance(engine, EngineConfig):
        return engine

    async def opened() -> Backend:
        return await Engine.open(engine)

    return opened


async def serving(
    opened: Factory, config: ServerConfig, listening: socket.socket, announce: Callable[[str], None]
) -> None:
    """One server's life, in a loop of the caller's.

    Args:
        opened: opens the engine, which is closed at the end.
        config: settings.
        listening: see `bound_socket`; the caller closes it.
        announce: see `serve`.
    """
    engine = await opened()
    try:
        app = create_app(engine, config)
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=CLOSING_S,
            lifespan="on",
        )
        server = DrainingServer(settings, app.state.context, lambda: announce(url_of(listening)))
        await server.serve(sockets=[listening])
        _log.info("stopped", unfinished=unfinished_views(engine))
    finally:
        await engine.close()


def unfinished_views(engine: Backend) -> int:
    """How many jobs have not ended."""
    capacity = engine.capacity()
    return capacity.queued + capacity.running


class DrainingServer(uvicorn.Server):
    """Uvicorn that lets jobs end before it stops.

    Args:
        config: uvicorn's.
        context: of the app.
        announce: called once requests are answered.
    """

    def __init__(self, config: uvicorn.Config, context: Context, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._context, self._announce = context, announce
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to answer."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: the first one drains, the second one does not wait."""
        if self._context.is_draining or self._loop is None:
            self.should_exit = True
            return
        self._context.is_draining = True
        self._loop.call_soon_threadsafe(self._begin_to_drain)

    def _begin_to_drain(self) -> None:
        unfinished = unfinished_views(self._context.backend)
        _log.info("draining", seconds=self._context.config.drain_s, unfinished=unfinished)
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Waits for unfinished jobs."""
        until = self._context.clock() + self._context.config.drain_s
        while self._context.clock() < until and unfinished_views(self._context.backend):
            await asyncio.sleep(0.1)
        self.should_exit = True
