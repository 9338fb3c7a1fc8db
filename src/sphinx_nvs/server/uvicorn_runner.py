"""Runs a server until a signal, then drains it.

SIGTERM, SIGINT ─► new work is refused (503, /readyz too), streams and responses continue
─► all jobs ended, or `drain_s` is over ─► connections close ─► the engine closes
second signal   ─► stops at once; unfinished jobs resume at the next start in either case
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import socket
from collections.abc import Callable
from types import FrameType
from typing import Literal

import structlog
import uvicorn

from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.engine import Engine
from sphinx_nvs.engine.types.engine_errors import FencedError
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.server.app import EngineFactory, create_app
from sphinx_nvs.server.backend import Backend
from sphinx_nvs.server.connections import (
    RESERVE,
    AcceptErrors,
    ConnectionLimits,
    ConnectionTable,
    guarded_protocol,
    room_for_files,
    sweep,
)
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.listening import bound_socket, url_of
from sphinx_nvs.server.prometheus import ConnectionMetrics
from sphinx_nvs.server.server_config import ServerConfig

CLOSE_S = 5
"""Time that open connections get once draining is over, seconds."""

FENCE_CHECK_S = 5.0
"""Interval at which the server checks that its engine still owns the store, seconds."""

_log = structlog.get_logger("sphinx_nvs.server")


def serve(
    engine: EngineConfig | EngineFactory,
    config: ServerConfig | None = None,
    announce: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until a signal stops it.

    Args:
        engine: settings of the engine, or a function that opens one.
        config: settings of the server; None for the defaults.
        announce: called with the server's URL once requests are answered.

    Raises:
        InputError: the address or the engine's folder cannot be used.
    """
    config = config or ServerConfig()

    def started(url: str) -> None:
        _exempt_from_collections()
        announce(url)

    # Bound before the models are loaded: a port that is taken is known at once, and not after a minute.
    with bound_socket(config) as listening:
        asyncio.run(serving(_factory(engine), config, listening, started))


def _exempt_from_collections() -> None:
    """Exempts all objects of this process from Python's garbage collection.

    Modules and routes last as long as the server. To visit these hundreds of thousands of objects stops the event loop,
    probes included, for a tenth of a second, on a busy machine for a whole one, just when many connections are opened.
    """
    gc.collect()
    gc.freeze()


def _factory(engine: EngineConfig | EngineFactory) -> EngineFactory:
    """Returns a function that opens the engine."""
    if not isinstance(engine, EngineConfig):
        return engine

    async def open_engine() -> Backend:
        return await Engine.open(engine)

    return open_engine


async def serving(
    open_engine: EngineFactory, config: ServerConfig, listening: socket.socket, announce: Callable[[str], None]
) -> None:
    """Runs one server in the caller's event loop.

    Args:
        open_engine: opens the engine, which is closed at the end.
        config: settings of the server.
        listening: a listening socket, see `bound_socket`; the caller closes it.
        announce: see `serve`.
    """
    engine = await open_engine()
    try:
        app = create_app(engine, config)
        context = app.state.context
        table = ConnectionTable(connection_limits(config))
        context.registry.register(ConnectionMetrics(table))
        settings = uvicorn_settings(app, config, guarded_protocol(table, context.clock))
        server = DrainingServer(settings, context, lambda: announce(url_of(listening)))
        asyncio.get_running_loop().set_exception_handler(AcceptErrors(context.clock))
        watching = [
            asyncio.create_task(work) for work in (sweep(table, context.clock), leave_when_fenced(server, engine))
        ]
        try:
            await server.serve(sockets=[listening])
        finally:
            for task in watching:
                task.cancel()
        _log.info("stopped", unfinished=unfinished_jobs(engine))
    finally:
        await engine.close()


async def leave_when_fenced(server: uvicorn.Server, engine: Backend, every_s: float = FENCE_CHECK_S) -> None:
    """Stops a server whose store another engine has taken over; it could store nothing any more."""
    while not server.should_exit:
        await asyncio.sleep(every_s)
        try:
            await engine.library.check()
        except FencedError as error:
            _log.error("stopping", reason=str(error))
            server.should_exit = True
        except SphinxError:
            pass  # Readiness reports it.


def connection_limits(config: ServerConfig) -> ConnectionLimits:
    """Returns the limits on connections, which this process's open files may lower."""
    networks = [ipaddress.ip_network(proxy) for proxy in config.trusted_proxies]
    total = room_for_files(config.connections + RESERVE)

    def is_proxy(address: str) -> bool:
        try:
            return any(ipaddress.ip_address(address) in network for network in networks)
        except ValueError:
            return False

    per_address = min(config.connections_per_address, max(1, total // 2))
    return ConnectionLimits(total=total, per_address=per_address, wait_s=config.wait_s, exempt=is_proxy)


def uvicorn_settings(
    app: object, config: ServerConfig, protocol: type[asyncio.Protocol] | Literal["auto"] = "auto"
) -> uvicorn.Config:
    """Returns uvicorn's settings for an app whose connections speak a protocol; "auto" is uvicorn's own."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=protocol,
        ws="websockets-sansio",
        ws_max_size=1 << 14,
        # Frames are compressed already.
        ws_per_message_deflate=False,
        # asyncio accepts as many connections in one go, and reports as many errors when descriptors run out.
        backlog=64,
        log_config=None,
        access_log=False,
        server_header=False,
        # Without a list of proxies, any client on this machine could claim any address.
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=list(config.trusted_proxies),
        timeout_keep_alive=30,
        timeout_graceful_shutdown=CLOSE_S,
        lifespan="on",
    )


def unfinished_jobs(engine: Backend) -> int:
    """Returns the number of unfinished jobs."""
    capacity = engine.capacity()
    return capacity.queued + capacity.running


class DrainingServer(uvicorn.Server):
    """A uvicorn server that lets jobs end before it stops.

    Args:
        config: uvicorn's settings.
        context: the app's context.
        announce: called once requests are answered.
    """

    def __init__(self, config: uvicorn.Config, context: Context, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._context, self._announce = context, announce
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to answer requests."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles a signal: the first drains, the second stops at once."""
        if self._context.is_draining or self._loop is None:
            self.should_exit = True
            return
        self._context.is_draining = True
        # A signal handler runs between any two instructions: it only leaves a note for the loop.
        self._loop.call_soon_threadsafe(self._start_draining)

    def _start_draining(self) -> None:
        unfinished = unfinished_jobs(self._context.backend)
        _log.info("draining", seconds=self._context.config.drain_s, unfinished=unfinished)
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Waits for unfinished jobs."""
        until = self._context.clock() + self._context.config.drain_s
        while self._context.clock() < until and unfinished_jobs(self._context.backend):
            await asyncio.sleep(0.1)
        self.should_exit = True
