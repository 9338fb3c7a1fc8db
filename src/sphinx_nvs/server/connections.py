"""Which connections are kept when a server is crowded: a client that makes the server wait gives way to a newcomer.

A connection is in one of two states. It *works* while the server prepares a response, or waits for an event to stream.
It *waits for its client* while nothing but the client can move it on:

    no request yet, or none since the last response      an idle connection, or headers that arrive slowly
    a request whose body has not arrived                 announced, and not sent
    a response that is not read                          the transport's buffer is full
    a request that came before the last one's response   pipelining, which no common client does: it gives way, too

At a limit (of all connections, or of one address) the one that has waited longest is closed. So an attacker's sockets
push out each other, and someone with a request is served beside them; only if all of them work is the newcomer refused
(503 with Retry-After). Without a newcomer, `expired` closes what waits too long.

References: RFC 9110 section 15.6.4 (503); nginx `limit_conn`, `client_header_timeout`, `send_timeout`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import structlog
from uvicorn.protocols.http.auto import AutoHTTPProtocol

RESERVE = 32
"""Connections beyond the limit on requests, so that probes are answered when every request that may be open is."""

SWEEP_S = 1.0
"""Seconds between two searches for connections that wait too long."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/problem+json\r\nContent-Length: 107\r\n\r\n"
    b'{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Too many connections are open."}'
)

_log = structlog.get_logger("sphinx_nvs.server")


@runtime_checkable
class Connection(Protocol):
    """A connection as the table sees it."""

    address: str
    since: float
    """Time from which on it waits for its client, where it does; monotonic seconds."""

    @property
    def waits(self) -> bool:
        """Whether nothing but the client can move it on."""
        ...

    def drop(self) -> None:
        """Closes it at once, whatever it has not sent."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Limits on connections.

    Args:
        total: number of connections.
        per_address: number of connections of one address beyond which those of it that wait give way.
        wait_s: seconds that a connection may wait for its client.
        exempt: returns whether an address is a proxy's, behind which all clients share one.
    """

    total: int
    per_address: int
    wait_s: float
    exempt: Callable[[str], bool] = lambda address: False


class ConnectionTable:
    """The open connections.

    Args:
        limits: see `ConnectionLimits`.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._open: set[Connection] = set()
        self._by_address: defaultdict[str, set[Connection]] = defaultdict(set)
        self.dropped = 0
        """Connections that were closed in favour of another, or because they waited too long."""
        self.refused = 0
        """Newcomers for which there was no room."""

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: Connection) -> bool:
        """Adds a connection, in the place of one that waits where there is no room; returns whether it was added."""
        if not self._limits.exempt(connection.address):
            # Whether it succeeds or not: an address all of whose connections work is limited by its rate.
            self._made_room(self._by_address[connection.address], self._limits.per_address)
        if not self._made_room(self._open, self._limits.total):
            self.refused += 1
            self._forget_empty(connection.address)
            return False
        self._open.add(connection)
        self._by_address[connection.address].add(connection)
        return True

    def remove(self, connection: Connection) -> None:
        """Removes a connection that is closed; nothing happens if it was removed before."""
        self._open.discard(connection)
        self._by_address[connection.address].discard(connection)
        self._forget_empty(connection.address)

    def expired(self, now: float) -> None:
        """Closes connections that have waited too long."""
        late = [each for each in self._open if each.waits and now - each.since > self._limits.wait_s]
        for connection in late:
            self._drop(connection)

    def _made_room(self, group: Collection[Connection], limit: int) -> bool:
        """Whether one more fits into a group, after the one that has waited longest was closed if need be."""
        if len(group) < limit:
            return True
        waiting = [each for each in group if each.waits]
        if not waiting:
            return False
        self._drop(min(waiting, key=lambda each: each.since))
        return True

    def _drop(self, connection: Connection) -> None:
        self.dropped += 1
        self.remove(connection)
        connection.drop()

    def _forget_empty(self, address: str) -> None:
        """Drops the entry of an address without connections, so that the table does not grow with every address."""
        if not self._by_address[address]:
            del self._by_address[address]


def guarded_protocol(table: ConnectionTable, clock: Callable[[], float]) -> type[asyncio.Protocol]:
    """Returns uvicorn's HTTP protocol with its connections in a table.

    Args:
        table: the table.
        clock: monotonic seconds.
    """

    class GuardedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """One connection."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.address, self.since, self.is_admitted, self.is_socket = "", clock(), False, False

        @property
        def waits(self) -> bool:
            """See `Connection`."""
            if self.is_socket:
                return False  # A live session ends clients that are idle, or do not read.
            cycle = self.cycle
            if cycle is None or cycle.response_complete or self.flow.write_paused:
                return True
            # Of a body that arrives, uvicorn stops reading while the server is the slower one. After a whole request it
            # does so if another one follows at once: no client that waits for answers does that.
            return bool(cycle.more_body) != bool(self.flow.read_paused)

        def connection_made(self, transport: asyncio.Transport) -> None:
            """Admits the connection, or answers that there is no room."""
            peer = transport.get_extra_info("peername")
            self.address = peer[0] if isinstance(peer, tuple) else ""
            self.is_admitted = table.admit(self)
            if self.is_admitted:
                super().connection_made(transport)
            else:
                transport.write(_BUSY)
                transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forgets the connection."""
            table.remove(self)
            if self.is_admitted:
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Passes on what arrived."""
            if not self.is_admitted:
                return
            # Within headers the time counts from the first byte: one byte now and then does not keep a place. Bytes of
            # a body do, for which the time until a response must start is the limit (`ServerConfig.request_s`).
            if self.cycle is not None and not self.cycle.response_complete:
                self.since = clock()
            super().data_received(data)

        def on_response_complete(self) -> None:
            """Begins to wait for the next request."""
            self.since = clock()
            super().on_response_complete()

        def handle_websocket_upgrade(self, *event: Any) -> None:
            """Hands the connection to uvicorn's WebSocket protocol; its place is free when that has lost it."""
            super().handle_websocket_upgrade(*event)
            self.is_socket = True
            protocol = self.transport.get_protocol()
            forget = protocol.connection_lost

            def connection_lost(exc: Exception | None) -> None:
                table.remove(self)
                forget(exc)

            protocol.connection_lost = connection_lost

        def pause_writing(self) -> None:
            """Begins to wait for the client to read."""
            self.since = clock()
            super().pause_writing()

        def drop(self) -> None:
            """See `Connection`."""
            self.transport.abort()

    return GuardedProtocol


async def sweep(table: ConnectionTable, clock: Callable[[], float]) -> None:
    """Closes connections that wait too long, until it is cancelled."""
    while True:
        await asyncio.sleep(SWEEP_S)
        table.expired(clock())


def room_for_files(limit: int) -> int:
    """Raises this process's limit on open files as far as it may, and returns how many may be connections.

    Args:
        limit: connections that the settings allow.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit on sockets.
        return limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return limit
    # A response that sends a file holds two descriptors, and the store, the devices and the logs need some.
    return max(4, min(limit, (soft - 64) // 2))


class AcceptErrors:
    """Logs once a minute, not at every attempt, that no connection can be accepted; all else goes to asyncio's handler.

    Args:
        clock: monotonic seconds.
    """

    QUIET_S = 60.0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._logged = clock, float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handles what asyncio reports."""
        if "socket.accept()" not in str(context.get("message", "")):
            loop.default_exception_handler(context)
            return
        if self._clock() - self._logged >= self.QUIET_S:
            self._logged = self._clock()
            _log.error("no connection can be accepted: the process is out of file descriptors or memory")
