"""Clients that disconnect from a real server during their streams leave no job, listener or socket."""

import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from sphinx_nvs.load_testing.job_watcher import metrics_of
from sphinx_nvs.load_testing.server_process import ServerProcess

pytestmark = pytest.mark.slow

CLIENTS = 8
UNTIL = (b"HTTP/1.1 200", b"event: queued", b"event: preview_frame", b"event: plan")
"""What a client has seen when it vanishes."""


@pytest.fixture
def server(tmp_path):
    """A server, its worker in a process of its own."""
    options = ("--log-format", "json", "--rate", "10000", "--steps", "4")
    process = ServerProcess(tmp_path / "server", options)
    process.start()
    try:
        wait(lambda: is_ready(process), 120)
        yield process
    finally:
        process.stop(10)


def is_ready(process):
    try:
        return httpx.get(f"{process.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def wait(holds, seconds):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.05)


def accepted(url, seed):
    """A job's id."""
    body = {"scene": "demo", "path": "interpolate", "num_frames": 2, "size": "64x64", "seed": seed}
    answer = httpx.post(f"{url}/v1/jobs", json=body, headers={"Connection": "close"})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def vanish(server, job, until, *, resets):
    """Reads a job's stream up to a text, then disconnects: by closing, or by a reset as if the cable were cut."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        seen = b""
        while until not in seen:
            data = line.recv(65536)
            assert data, seen
            seen += data
        if resets:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def lines_of(server):
    """Returns the sockets of the server's process except the listening one."""
    sockets = psutil.Process(server.pid).net_connections("inet")
    return [each for each in sockets if each.status != psutil.CONN_LISTEN]


def test_clients_that_disconnect_leave_no_job_and_no_socket(server):
    jobs = [accepted(server.url, seed) for seed in range(CLIENTS)]
    with ThreadPoolExecutor(2 * CLIENTS) as clients:
        gone = [
            clients.submit(vanish, server, job, UNTIL[index % len(UNTIL)], resets=index % 2 == 0)
            for index, job in enumerate(jobs)
        ]
        # And as many on one job, which all receive the same events.
        gone += [clients.submit(vanish, server, jobs[-1], UNTIL[2], resets=True) for _ in range(CLIENTS)]
        for each in gone:
            each.result(120)
    wait(lambda: not lines_of(server), 20)
    with httpx.Client(base_url=server.url) as http:
        wait(lambda: metrics_of(http.get("/metrics").text)["sphinx_event_listeners"] == 0, 20)
        wait(lambda: is_idle(http.get("/v1/capacity").json()), 120)
        for job in jobs:
            assert http.get(f"/v1/jobs/{job}").json()["status"] == "completed", "it continues without them"
    wait(lambda: not lines_of(server), 20)
    entries = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [entry for entry in entries if entry["level"] in ("warning", "error", "critical")] == []


def is_idle(capacity):
    """Returns whether no job waits or runs, and no device holds a unit."""
    held = [device["held"] for device in capacity["devices"]]
    return capacity["queued"] == capacity["running"] == 0 and not any(held)
