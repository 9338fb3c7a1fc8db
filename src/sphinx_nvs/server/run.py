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
from sphinx_nvs.errors import InputError
from sphinx_nvs.server.app import Factory, create_app
from sphinx_nvs.server.backend import Backend
from sphinx_nvs.server.config import ServerConfig
from sphinx_nvs.server.context import Context

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
    asyncio.run(_serve(_opener(engine), config or ServerConfig(), announce))


def _opener(engine: EngineConfig | Factory) -> Factory:
    """What opens the engine."""
    if not isinstance(engine, EngineConfig):
        return engine

    async def opened() -> Backend:
        return await Engine.open(engine)

    return opened


async def _serve(opened: Factory, config: ServerConfig, announce: Callable[[str], None]) -> None:
    """One server's life."""
    listening = bound_socket(config)
    with listening:
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
            host, port = listening.getsockname()[:2]
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            await DrainingServer(settings, app.state.context, lambda: announce(url)).serve(sockets=[listening])
        finally:
            await engine.close()


def bound_socket(config: ServerConfig) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: the address is taken, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server((config.host, config.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        found = f"{config.host} port {config.port} cannot be used ({getattr(error, 'strerror', None) or error})"
        raise InputError("--host, --port", found, "choose another port, or stop what listens there") from error
    # Connections inherit it. Without it, every answer of two packets waits 40 ms for the first one's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


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
        _log.info("draining", seconds=self._context.config.drain_s)
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Waits for unfinished jobs."""
        until = self._context.clock() + self._context.config.drain_s
        while self._context.clock() < until and self._is_busy(self._context.backend):
            await asyncio.sleep(0.1)
        self.should_exit = True

    def _is_busy(self, engine: Backend) -> bool:
        """Whether a job is unfinished."""
        capacity = engine.capacity()
        return capacity.queued + capacity.running > 0
