"""Event streams: order, resuming, end, disconnects, limits."""

import asyncio
import contextlib
import json
from dataclasses import replace

import httpx
import pytest
import uvicorn
from httpx_sse import aconnect_sse
from server_fakes import run

from sphinx_nvs.engine.store.row_types import SceneState
from sphinx_nvs.server.api.problems import ProblemError
from sphinx_nvs.server.app import create_app
from sphinx_nvs.server.auth import Caller
from sphinx_nvs.server.listening import bound_socket
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig
from sphinx_nvs.server.sse import stream_response

BODY = {"scene": "demo", "path": "move-forward", "num_frames": 2, "size": "64x64"}


def events_of(text):
    """Parses a stream to numbers, kinds and data."""
    found = []
    for block in text.replace("\r", "").strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and line[0] != ":")
        if "event" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


@contextlib.asynccontextmanager
async def served(engine, **settings):
    """Runs a real server inside the block; yields a client and its context."""
    config = ServerConfig(**{"has_demo": False, "key": KeyLimits(rate_per_s=1e6, burst=10**6), **settings})
    app = create_app(engine, config)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    with bound_socket(ServerConfig(port=0)) as listening:
        task = asyncio.create_task(server._serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=10) as client:
                yield client, app.state.context
        finally:
            server.should_exit = True
            await task


async def accepted(client):
    """Creates a job; returns its id."""
    answer = await client.post("/v1/jobs", json=BODY)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def test_events_of_a_finished_job_in_order(client, engine):
    job = client.post("/v1/jobs", json=BODY).json()
    engine.preview(job["id"])
    engine.finish(job["id"])
    answer = client.get(job["links"]["events"])
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    kinds = ["queued", "preview_frame", "preview_frame", "plan", "frame_refined", "frame_refined", "completed"]
    assert [kind for _, kind, _ in events] == kinds
    assert [number for number, _, _ in events] == sorted(number for number, _, _ in events)
    quote = events[0][2]["quote"]
    assert (quote["quality"], quote["latency_s"]) == (0.9, {"p50": 2.0, "p95": 3.0}), "as in the response to POST"
    assert events[3][2]["reason"] == "planned from profile.json"
    frame = events[4][2]
    assert "frame" not in frame
    assert client.get(frame["url"]).status_code == 200


def test_a_stream_resumes_after_the_last_event(client, engine):
    job = client.post("/v1/jobs", json=BODY).json()
    engine.preview(job["id"])
    engine.finish(job["id"])
    address = job["links"]["events"]
    events = events_of(client.get(address).text)
    rest = events_of(client.get(address, headers={"Last-Event-ID": str(events[2][0])}).text)
    assert rest == events[3:]
    assert events_of(client.get(f"{address}?after={events[2][0]}").text) == events[3:]
    over = client.get(address, headers={"Last-Event-ID": str(events[-1][0])})
    assert (over.status_code, over.content) == (204, b"")
    assert client.get(address, headers={"Last-Event-ID": "seven"}).status_code == 422


def test_events_arrive_as_they_happen_and_the_stream_ends(engine):
    async def scenario():
        async with served(engine, ping_s=0.05) as (client, context):
            job_id = await accepted(client)
            kinds = []
            async with aconnect_sse(client, "GET", f"/v1/jobs/{job_id}/events") as source:
                async for event in source.aiter_sse():
                    kinds.append(event.event)
                    if event.event == "queued":
                        assert len(context.streams) == 1
                        await asyncio.sleep(0.2)
                        engine.preview(job_id)
                        engine.cancelled = await client.delete(f"/v1/jobs/{job_id}")
            assert kinds == ["queued", "preview_frame", "preview_frame", "cancelled"]
            return len(context.streams), engine.feed.num_listeners

    assert run(scenario()) == (0, 0)


def test_keep_alive_comments_on_a_quiet_stream(engine):
    async def scenario():
        async with served(engine, ping_s=0.05) as (client, _):
            job_id = await accepted(client)
            async with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
                text = ""
                async for chunk in answer.aiter_text():
                    text += chunk
                    if text.count(": ping") >= 2:
                        break
            return text.count("event:")

    assert run(asyncio.wait_for(scenario(), 10)) == 1


@pytest.mark.parametrize("stream", ["jobs", "scenes"])
def test_a_revoked_keys_stream_ends_and_another_keys_goes_on(engine, monkeypatch, stream):
    """Within `STREAM_CHECK_S` and the time until the list of valid keys is read again, which is as long."""
    monkeypatch.setattr("sphinx_nvs.server.sse.STREAM_CHECK_S", 0.05)
    monkeypatch.setattr("sphinx_nvs.server.context.STREAM_CHECK_S", 0.05)
    monkeypatch.setattr("sphinx_nvs.server.scene_stream.STREAM_CHECK_S", 0.05, raising=False)
    made = [engine.store.add_key(name, now=engine.now) for name in ("first", "second")]

    begun = []

    async def listen(client, key):
        headers = {"Authorization": f"Bearer {key}"}
        if stream == "jobs":
            path = (await client.post("/v1/jobs", json=BODY, headers=headers)).json()["links"]["events"]
        else:
            row = replace(
                engine.store.scene("demo"), id=f"posing{key[-6:]}", state=SceneState.POSING, created_s=engine.now
            )
            row = replace(row, key_id=next(one.id for one, secret in made if secret == key))
            engine.store.add_scene(row)
            path = f"/v1/scenes/{row.id}/events"
        async with client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200
            begun.append(key)
            async for _ in answer.aiter_lines():
                pass

    async def scenario():
        async with served(engine, require_keys=True, ping_s=0.02) as (client, _):
            listening = [asyncio.create_task(listen(client, secret)) for _, secret in made]
            while len(begun) < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in listening)
            engine.store.revoke_key(made[0][0].id, now=engine.now)
            await asyncio.wait_for(asyncio.shield(listening[0]), 5)
            await asyncio.sleep(0.3)
            assert not listening[1].done()
            listening[1].cancel()

    run(scenario())


def test_disconnected_clients_leave_no_streams(engine):
    async def vanish(client, job_id):
        async with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            async for _ in answer.aiter_text():
                return

    async def scenario():
        async with served(engine) as (client, context):
            job_id = await accepted(client)
            await asyncio.gather(*(vanish(client, job_id) for _ in range(8)))
            for _ in range(200):
                if not len(context.streams) and not engine.feed.num_listeners:
                    return True
                await asyncio.sleep(0.02)
            return len(context.streams), engine.feed.num_listeners

    assert run(scenario()) is True


def test_the_number_of_streams_is_limited(engine):
    async def scenario():
        limits = KeyLimits(streams=2)
        async with served(engine, key=limits) as (client, _), contextlib.AsyncExitStack() as open_streams:
            job_id = await accepted(client)
            texts = []
            for _ in range(2):
                answer = await open_streams.enter_async_context(client.stream("GET", f"/v1/jobs/{job_id}/events"))
                texts.append(answer.aiter_text())
                await anext(texts[-1])
            third = await client.get(f"/v1/jobs/{job_id}/events")
            return third.status_code, third.headers["retry-after"]

    assert run(scenario()) == (429, "5")


def test_streams_opened_concurrently_are_limited(engine):
    async def status(client, job_id):
        async with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            texts = answer.aiter_text()
            if answer.status_code == 200:
                await anext(texts)
                await asyncio.sleep(0.5)
            return answer.status_code

    async def scenario():
        async with served(engine, key=KeyLimits(streams=2)) as (client, context):
            job_id = await accepted(client)
            statuses = await asyncio.gather(*(status(client, job_id) for _ in range(8)))
            assert sorted(statuses) == [200, 200, *[429] * 6]
            while len(context.streams):
                await asyncio.sleep(0.02)

    run(asyncio.wait_for(scenario(), 20))


def test_a_stream_is_counted_before_its_first_byte(client, engine):
    job = engine.store.job(client.post("/v1/jobs", json=BODY).json()["id"])
    context = client.app.state.context
    caller = Caller(key_id="anonymous", name="a", limits=KeyLimits(streams=1))

    scope = {"type": "http", "method": "GET"}

    async def opened():
        async def receive():
            await asyncio.sleep(0.3)
            return {"type": "http.disconnect"}

        async def send(message):
            await asyncio.sleep(0.1)

        await (await stream_response(context, caller, job, 0))(scope, receive, send)

    async def scenario():
        return await asyncio.gather(opened(), opened(), return_exceptions=True)

    first, second = run(scenario())
    assert first is None
    assert isinstance(second, ProblemError)
    assert second.status == 429
    assert len(context.streams) == 0


@pytest.mark.parametrize("method", ["put", "post"])
def test_a_stream_is_read_only(client, method):
    answer = getattr(client, method)("/v1/jobs/job_x/events")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
