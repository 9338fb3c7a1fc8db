"""Requests are sent at their times, for all answers of the server; outcomes count from then."""

import asyncio
import json
import time

import httpx
import pytest

from sphinx_nvs.client import AsyncClient, Retrying
from sphinx_nvs.load_testing import load_generator
from sphinx_nvs.load_testing.load_generator import Sender, as_requested, fixed
from sphinx_nvs.load_testing.simulation.arrivals import Arrival
from sphinx_nvs.load_testing.simulation.run_summary import summarise

VIEW = {
    "id": "job_0",
    "status": "queued",
    "level": "none",
    "progress": 0.0,
    "scene": "demo",
    "num_frames": 2,
    "width": 64,
    "height": 64,
    "fps": 24.0,
    "seed": 0,
    "priority": 0,
    "quality": None,
    "quote": {
        "latency_s": {"p50": 0.2, "p95": 0.4},
        "wait_s": 0.1,
        "quality": 0.9,
        "active_share": 0.5,
        "reason": "",
    },
    "reason": "",
    "created_at": "2026-01-01T00:00:00Z",
    "finished_at": None,
    "expires_at": None,
}
REST = {"wait_s": 0.0, "backlog_s": 0.0, "pressure": 0.0, "slo_attainment": 1.0}
STORY = [
    ("queued", {}),
    ("preview_frame", {"index": 0}),
    ("preview_frame", {"index": 1}),
    ("degraded", {"from": 1.0, "to": 0.9, "reason": "load"}),
    ("plan", {"unit": 1, "targets": [0], "quality": 0.92}),
    ("plan", {"unit": 2, "targets": [1], "quality": 0.90}),
    ("completed", {"level": "final", "quality": 0.91}),
]


class Server:
    """Answers as a server does; `story` is every view's stream of events, with pauses."""

    def __init__(self, story=STORY, pause_s=0.01, ends=True, refuses=()):
        self.story, self.pause_s, self.ends, self.refuses = story, pause_s, ends, refuses
        self.asked, self.at, self.deleted = [], [], []

    async def __call__(self, request):
        path = request.url.path
        if request.method == "POST":
            return self.accept(request)
        if request.method == "DELETE":
            self.deleted.append(path.rsplit("/", 1)[-1])
            return httpx.Response(200, json={**VIEW, "id": self.deleted[-1], "status": "cancelled"})
        if path.endswith("/events"):
            return httpx.Response(200, content=self.stream(path.split("/")[-2]))
        if path == "/v1/capacity":
            device = {
                "index": 0,
                "name": "",
                "is_ready": True,
                "is_busy": False,
                "resident_units": 0,
                "remaining_s": 0.0,
            }
            rest = {"queued": 0, "running": 0, "max_queue": 9, "streams": 0}
            floats = {"wait_s": 0.0, "backlog_s": 0.0, "pressure": 0.0, "slo_attainment": 1.0}
            return httpx.Response(200, json={"devices": [device], **rest, **floats})
        return httpx.Response(200, json={**VIEW, "id": path.rsplit("/", 1)[-1]})

    def accept(self, request):
        number = len(self.asked)
        self.at.append(time.monotonic())
        self.asked.append(json.loads(request.content))
        if number in self.refuses:
            return httpx.Response(self.refuses[number], json={"detail": "no"})
        return httpx.Response(202, json={**VIEW, "id": f"job_{number}"})

    async def stream(self, view):
        for seq, (kind, data) in enumerate(self.story if self.ends else self.story[:-1], start=1):
            await asyncio.sleep(self.pause_s)
            said = json.dumps({"job": view, "at_s": 0.0, **data})
            yield f"id: {seq}\nevent: {kind}\ndata: {said}\n\n".encode()
        if not self.ends:
            await asyncio.sleep(60)


def sent(server, arrivals, requests=as_requested, until_s=5.0):
    async def go():
        async with Sender("http://server") as sender:
            await sender._client.close()
            transport = httpx.MockTransport(server)
            sender._client = AsyncClient("http://server", retrying=Retrying(attempts=1), http=transport)
            return await sender.send(arrivals, requests, until_s=until_s), sender.problems

    return asyncio.run(go())


def arrival(at_s=0.0, **fields):
    return Arrival(**{"at_s": at_s, "views": 2, "height": 64, "width": 96, "deadline_s": 1.0, **fields})


def test_events_of_a_stream_are_recorded():
    run, problems = sent(Server(), [arrival(min_quality=0.9, quality=1.0)])
    (outcome,) = run.outcomes
    assert problems == []
    assert outcome.accepted
    assert (outcome.quote.latency_s, outcome.quote.latency_p95_s, outcome.quote.wait_s) == (0.2, 0.4, 0.1)
    assert 0.02 < outcome.preview_s < outcome.done_s < 1.0
    assert outcome.qualities == [(0.92, 1), (0.90, 1)]
    assert outcome.lowest == 0.90
    assert outcome.degraded == ["load"]
    assert outcome.is_good
    assert summarise(run).slo_attainment == 1.0


def test_the_clock_starts_when_a_request_is_due():
    """A late sender counts the delay; requests are sent at their times even if earlier ones wait."""
    server = Server(pause_s=0.1)
    run, _ = sent(server, [arrival(0.0), arrival(0.2), arrival(0.4)])
    gaps = [late - soon for soon, late in zip(server.at, server.at[1:], strict=False)]
    assert all(0.15 < gap < 0.35 for gap in gaps)
    assert all(0.6 < outcome.done_s < 1.2 for outcome in run.outcomes)


def test_what_is_refused_counts_as_rejected_and_mistakes_as_problems():
    server = Server(refuses={0: 429, 1: 503, 2: 422, 3: 500})
    run, problems = sent(server, [arrival(0.01 * i) for i in range(5)])
    assert [outcome.accepted for outcome in run.outcomes] == [False] * 4 + [True]
    assert [outcome.is_good for outcome in run.outcomes] == [False] * 4 + [True]
    assert len(problems) == 2


def test_requests_left_at_the_end_are_cancelled_and_not_good():
    server = Server(ends=False)
    run, _ = sent(server, [arrival(), arrival(0.05)], until_s=0.4)
    assert server.deleted == ["job_0", "job_1"]
    assert [outcome.done_s for outcome in run.outcomes] == [None, None]
    assert not any(outcome.is_good for outcome in run.outcomes)
    assert 0.35 < run.end_s < 1.0


@pytest.mark.parametrize("last", [("failed", {"reason": "x"}), ("completed", {"level": "preview", "quality": 0.0})])
def test_an_unrefined_view_is_not_good(last):
    server = Server(story=[*STORY[:-1], last])
    run, _ = sent(server, [arrival()])
    assert server.deleted == []
    assert not run.outcomes[0].is_good


def test_requests_of_policies():
    asked = arrival(quality=0.98, min_quality=0.9)
    frames = {"path": "interpolate", "num_frames": 2, "size": (96, 64)}
    assert as_requested(asked) == {**frames, "quality": 0.98, "min_quality": 0.9, "deadline_s": 1.0}
    assert as_requested(arrival(deadline_s=None)) == {**frames, "min_quality": 0.0}
    without = {**frames, "quality": 0.9, "min_quality": 0.9, "deadline_s": load_generator.DISTANT_S}
    assert fixed(0.9, with_deadline=False)(asked) == without
    with_deadline = {**frames, "quality": 0.9, "min_quality": 0.9, "deadline_s": 1.0}
    assert fixed(0.9, with_deadline=True)(asked) == with_deadline
    assert load_generator.REFUSED == (429, 503)


def test_no_request_waits_for_a_connection_of_an_earlier_one():
    """A server that answers no request before it has received all."""
    body = json.dumps({"devices": [], "queued": 0, "running": 0, "max_queue": 9, "streams": 0} | REST).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def scenario():
        heard, all_heard = 0, asyncio.Event()

        async def answer(reader, writer):
            nonlocal heard
            await reader.readuntil(b"\r\n\r\n")
            heard += 1
            if heard == 150:
                all_heard.set()
            await all_heard.wait()
            writer.write(head + body)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256) as server:
            port = server.sockets[0].getsockname()[1]
            async with Sender(f"http://127.0.0.1:{port}") as sender:
                asked = asyncio.gather(*(sender.devices() for _ in range(150)))
                return await asyncio.wait_for(asked, 20)

    assert asyncio.run(scenario()) == [0] * 150
