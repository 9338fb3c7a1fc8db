"""Crowded servers: who gives way to whom, in the table and over real sockets."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import httpx
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from server_fakes import open_engine, run

from sphinx_nvs.server import connections
from sphinx_nvs.server.app import create_app
from sphinx_nvs.server.connections import (
    AcceptErrors,
    ConnectionLimits,
    ConnectionTable,
    guarded_protocol,
    room_for_files,
    sweep,
)
from sphinx_nvs.server.listening import bound_socket, url_of
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig
from sphinx_nvs.server.uvicorn_runner import connection_limits, uvicorn_settings


@dataclass(eq=False)
class FakeConnection:
    address: str = "1.1.1.1"
    since: float = 0.0
    waits: bool = True
    dropped: list[bool] = field(default_factory=list)

    def drop(self):
        self.dropped.append(True)


def table(total=3, per_address=2, exempt=lambda address: False):
    return ConnectionTable(ConnectionLimits(total=total, per_address=per_address, wait_s=10.0, exempt=exempt))


def test_the_one_that_has_waited_longest_gives_way():
    full = table(total=2, per_address=9)
    young, old = FakeConnection(since=5.0), FakeConnection(since=1.0)
    newcomer = FakeConnection(since=6.0)
    assert all(full.admit(each) for each in (young, old, newcomer))
    assert (old.dropped, young.dropped, len(full), full.dropped) == ([True], [], 2, 1)


def test_one_that_works_is_never_dropped_and_the_newcomer_is_refused():
    full = table(total=1, per_address=9)
    working = FakeConnection(waits=False)
    assert full.admit(working)
    assert not full.admit(FakeConnection())
    assert (working.dropped, len(full), full.refused) == ([], 1, 1)


def test_an_address_pushes_out_its_own_connections_first():
    crowded = table(total=9, per_address=2)
    other = FakeConnection(address="2.2.2.2", since=0.0)
    own = [FakeConnection(since=float(i)) for i in range(1, 4)]
    assert all(crowded.admit(each) for each in (other, *own))
    assert other.dropped == []
    assert [each.dropped for each in own] == [[True], [], []]


def test_a_proxy_has_no_limit_of_its_own():
    crowded = table(total=9, per_address=1, exempt=lambda address: address == "10.0.0.1")
    behind = [FakeConnection(address="10.0.0.1") for _ in range(5)]
    assert all(crowded.admit(each) for each in behind)
    assert not any(each.dropped for each in behind)


def test_waiting_has_a_limit():
    some = table()
    late, early, working = FakeConnection(since=1.0), FakeConnection(since=8.0), FakeConnection(since=0.0, waits=False)
    for each in (late, early, working):
        some.admit(each)
    some.expired(12.0)
    assert [each.dropped for each in (late, early, working)] == [[True], [], []]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans(), st.floats(0, 100)),
        max_size=40,
    )
)
def test_the_table_is_never_above_its_limit(arrivals):
    some = table(total=4, per_address=2)
    admitted = []
    for address, waits, since in arrivals:
        connection = FakeConnection(address=address, waits=waits, since=since)
        if some.admit(connection):
            admitted.append(connection)
        assert len(some) <= 4
    assert len(some) == len([each for each in admitted if not each.dropped])
    for each in admitted:
        some.remove(each)
    assert len(some) == 0


def test_a_process_with_few_files_has_few_connections(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 256))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: None)
    assert room_for_files(1000) == 96
    assert room_for_files(10) == 10


def test_accept_errors_are_logged_once_a_minute(monkeypatch):
    logged, now = [], [0.0]
    monkeypatch.setattr(connections._log, "error", lambda *args, **fields: logged.append(args))
    handle = AcceptErrors(lambda: now[0])
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        for now[0] in (0.0, 1.0, 59.0, 61.0):
            handle(loop, {"message": "socket.accept() out of system resource"})
    assert len(logged) == 2


def test_trusted_proxies_are_exempt():
    limits = connection_limits(ServerConfig(trusted_proxies=("10.0.0.0/24",)))
    assert limits.exempt("10.0.0.7")
    assert not limits.exempt("10.0.1.7")
    assert not limits.exempt("")


# Real sockets ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(tmp_path, *, total, wait_s=30.0, **settings):
    """A real server on loopback, in this loop, with few connections."""
    tmp_path.mkdir(exist_ok=True)
    config = ServerConfig(port=0, has_demo=False, **settings)
    crowd = ConnectionTable(ConnectionLimits(total=total, per_address=total, wait_s=wait_s))
    protocol = guarded_protocol(crowd, time.monotonic)
    with bound_socket(config) as listening:
        app = create_app(open_engine(tmp_path), config)
        server = uvicorn.Server(uvicorn_settings(app, config, protocol))
        server.install_signal_handlers = lambda: None
        tasks = [
            asyncio.create_task(work) for work in (server.serve(sockets=[listening]), sweep(crowd, time.monotonic))
        ]
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            yield url_of(listening), listening.getsockname()[1], crowd
        finally:
            server.should_exit = True
            tasks[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def attackers(port, count, request):
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for _, writer in pairs:
        writer.write(request)
    await asyncio.sleep(0.1)
    yield [reader for reader, _ in pairs]
    for _, writer in pairs:
        writer.transport.abort()
    await asyncio.sleep(0.05)


async def statuses(url, *paths):
    async with httpx.AsyncClient(timeout=5.0) as http:
        return [(await http.get(url + path)).status_code for path in paths]


def test_announced_bodies_and_slow_headers_keep_nobody_out(tmp_path):
    async def scene():
        for request in (
            b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n",
            b"GET /v1/scenes HTTP/1.1\r\nHost: loc",
            b"",
        ):
            async with (
                served(tmp_path / str(len(request)), total=6) as (url, port, crowd),
                attackers(port, 20, request),
            ):
                assert await statuses(url, "/healthz", "/v1/scenes") == [200, 200]
                for _ in range(500):
                    if crowd.dropped >= 14:
                        break
                    await asyncio.sleep(0.01)
                assert crowd.dropped >= 14
                assert len(crowd) <= 6

    run(scene())


def test_answers_that_are_not_read_give_way(tmp_path):
    async def scene():
        async with served(tmp_path, total=4) as (url, port, _):
            many = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 150
            async with attackers(port, 4, many):
                await asyncio.sleep(0.5)
                assert await statuses(url, "/healthz") == [200]

    run(scene())


def test_a_connection_that_waits_too_long_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "SWEEP_S", 0.05)

    async def scene():
        async with (
            served(tmp_path, total=4, wait_s=0.2) as (_, port, crowd),
            attackers(port, 1, b"GET / HTTP/1.1\r\n") as readers,
        ):
            assert await asyncio.wait_for(readers[0].read(), 5.0) == b""
            assert crowd.dropped == 1

    run(scene())


def test_a_newcomer_among_working_connections_is_told_to_retry(tmp_path):
    async def scene():
        async with served(tmp_path, total=2) as (_, port, crowd):
            for _ in range(2):
                crowd.admit(FakeConnection(waits=False))
            async with attackers(port, 1, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as readers:
                answer = await asyncio.wait_for(readers[0].read(), 5.0)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in head
        assert f"Content-Length: {len(body)}".encode() in head

    run(scene())


def test_the_key_is_checked_before_a_byte_of_the_body_is_read(tmp_path):
    async def scene():
        async with served(tmp_path, total=4, require_keys=True) as (_, port, _):
            request = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"
            async with attackers(port, 1, request) as readers:
                line = await asyncio.wait_for(readers[0].readline(), 5.0)
        assert line.startswith(b"HTTP/1.1 401 ")

    run(scene())


def test_a_flood_without_a_key_is_not_read_to_its_end(tmp_path):
    async def scene():
        key = KeyLimits(rate_per_s=0.001, burst=2)
        async with served(tmp_path, total=4, key=key) as (_, port, _):
            flood = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30
            async with attackers(port, 1, flood) as readers:
                return await asyncio.wait_for(readers[0].read(), 5.0)

    answers = run(scene())
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert answers.count(b"HTTP/1.1 429 ") == 1
