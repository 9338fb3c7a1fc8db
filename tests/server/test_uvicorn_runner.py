"""The server process: address, forwarded addresses, draining, stopping."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import uvicorn
from server_fakes import run

from sphinx_nvs.errors import InputError
from sphinx_nvs.server.api.requests import JobRequest
from sphinx_nvs.server.app import create_app
from sphinx_nvs.server.context import Context
from sphinx_nvs.server.listening import bound_socket, url_of
from sphinx_nvs.server.routes.job_routes import spec_from
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig
from sphinx_nvs.server.uvicorn_runner import DrainingServer, serve, uvicorn_settings

SCRIPT = """
import gc
import sys
from pathlib import Path
from server_fakes import open_engine
from sphinx_nvs.server.server_config import ServerConfig
from sphinx_nvs.server.uvicorn_runner import serve

async def opened():
    return open_engine(Path(sys.argv[1]))

config = ServerConfig(port=0, drain_s=float(sys.argv[2]), has_demo=False)
serve(opened, config, lambda url: sys.stdout.write(url + "\\n") and sys.stdout.flush())
sys.stdout.write(f"{gc.get_freeze_count()} exempt\\nclosed\\n")
"""
BODY = {"scene": "demo", "path": "move-forward", "num_frames": 2, "size": "64x64"}


@pytest.fixture
def start(tmp_path):
    """Starts servers with a drain time; returns their process and a client."""
    started = []

    def begin(drain_s):
        here = str(Path(__file__).parent)
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(drain_s)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here)
        client = httpx.Client(base_url=process.stdout.readline().strip(), timeout=10)
        started.append((process, client))
        return process, client

    yield begin
    for process, client in started:
        client.close()
        process.kill()
        process.communicate()


def eventually(holds):
    for _ in range(200):
        if holds():
            return True
        time.sleep(0.02)
    return False


def test_the_first_signal_drains_the_server_and_the_second_stops_it(start):
    process, client = start(60)
    job, other = (client.post("/v1/jobs", json=BODY).json() for _ in range(2))
    with client.stream("GET", job["links"]["events"]) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("id: ")
        process.terminate()
        assert eventually(lambda: client.get("/readyz").status_code == 503)
        refused = client.post("/v1/jobs", json=BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert client.get(job["links"]["self"]).json()["status"] == "queued"
        client.delete(job["links"]["self"])
        assert "event: cancelled" in list(lines), "streams continue until their end"
    with client.stream("GET", other["links"]["events"]) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("id: ")
        assert process.poll() is None
        process.terminate()
        assert "event: queued" in list(lines), "the stream ends as it should, or httpx raises an error"
    assert process.wait(15) == 0
    assert "without completing response" not in process.stderr.read()
    exempt, closed = process.stdout.read().splitlines()[-2:]
    assert int(exempt.removesuffix(" exempt")) > 100_000, "what start-up made is visited by no garbage collection"
    assert closed == "closed"


def test_the_second_signal_ends_draining(engine):
    async def scenario():
        spec = spec_from(JobRequest(**BODY), engine.store.scene("demo"), engine.config)
        await engine.accept(spec, key_id="anonymous")
        context = Context(config=ServerConfig(drain_s=60.0), engine=engine)
        server = DrainingServer(uvicorn.Config(create_app(engine)), context, list)
        server._loop = asyncio.get_running_loop()
        server.handle_exit(signal.SIGTERM, None)
        await asyncio.sleep(0.05)
        after_first = (context.is_draining, server.should_exit)
        server.handle_exit(signal.SIGTERM, None)
        server._draining.cancel()
        return after_first, server.should_exit

    assert run(scenario()) == ((True, False), True)


def forwarded(engine, proxies):
    """Number of requests answered before the rate limit, for a client that claims a new address with each."""

    async def scenario():
        limits = KeyLimits(rate_per_s=0.001, burst=2)
        config = ServerConfig(port=0, has_demo=False, key=limits, trusted_proxies=proxies)
        app = create_app(engine, config)
        with bound_socket(config) as listening:
            server = DrainingServer(uvicorn_settings(app, config), app.state.context, lambda: None)
            task = asyncio.create_task(server._serve(sockets=[listening]))
            while not server.started:
                await asyncio.sleep(0.01)
            async with httpx.AsyncClient(base_url=url_of(listening)) as client:
                answers = [
                    await client.get("/v1/jobs", headers={"X-Forwarded-For": f"203.0.113.{n}"}) for n in range(4)
                ]
            server.should_exit = True
            await task
        return [answer.status_code for answer in answers].count(200)

    return run(scenario())


def test_forwarded_addresses_are_believed_only_from_trusted_proxies(engine):
    assert forwarded(engine, ()) == 2
    assert forwarded(engine, ("10.0.0.0/8",)) == 2
    assert forwarded(engine, ("127.0.0.0/8",)) == 4


def test_an_address_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = ServerConfig(port=taken.getsockname()[1])
        with pytest.raises(InputError, match="cannot be used"):
            serve(lambda: None, config)


def test_small_packets_are_sent_at_once():
    with bound_socket(ServerConfig(port=0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
