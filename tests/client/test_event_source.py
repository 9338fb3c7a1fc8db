"""Event streams of the client: order, progress, time limits, broken connections, restarted servers."""

import pytest
from client_fakes import QUICK, Served

from sphinx_nvs.client import ApiError, Client, Event, UnreachableError
from sphinx_nvs.client.calls import Response
from sphinx_nvs.client.event_source import IDLE_S, EventSource, LineParser, Progress

OPTIONS = {"path": "move-forward", "num_frames": 2, "size": "64x64"}
KINDS = ["queued", "preview_frame", "preview_frame", "plan", "frame_refined", "frame_refined", "completed"]


def event(seq, kind, **data):
    return Event(seq=seq, kind=kind, job="job_x", at_s=1.0, data=data)


def test_events_as_they_happen(served, client, engine):
    job = client.create_job("demo", **OPTIONS)
    kinds = []
    for each in client.events(job):
        kinds.append(each.kind)
        assert each.job == job.id
        if each.kind == "queued":
            served.later(0.15, engine.preview, job.id)
            served.later(0.2, engine.finish, job.id)
    assert kinds == KINDS
    assert each.is_final


def test_events_after_a_number(served, client, engine):
    job = client.create_job("demo", **OPTIONS)
    served.do(engine.preview, job.id)
    served.do(engine.finish, job.id)
    events = list(client.events(job))
    assert list(client.events(job.id, after=events[2].seq)) == events[3:]
    assert list(client.events(job, after=events[-1].seq)) == []


def test_wait_reports_progress(served, client, engine):
    job = client.create_job("demo", **OPTIONS)
    served.later(0.05, engine.preview, job.id)
    served.later(0.1, engine.finish, job.id)
    calls = []
    done = client.wait(job, progress=lambda share, event: calls.append((event.kind, share)), timeout_s=20)
    assert done.status == "completed"
    assert [kind for kind, _ in calls] == KINDS
    shares = [share for _, share in calls]
    assert shares == sorted(shares)
    assert shares[2:] == pytest.approx([0.1, 0.1, 0.55, 1.0, 1.0])


def test_a_time_limit(client):
    job = client.create_job("demo", **OPTIONS)
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.3 s"):
        client.wait(job, timeout_s=0.3)
    assert client.job(job).status == "queued"


def test_an_unknown_job(client):
    with pytest.raises(ApiError) as caught:
        next(client.events("job_nowhere"))
    assert caught.value.status == 404


def test_a_stream_continues_after_a_restart_of_the_server(engine, kind):
    first = Served(engine)
    with kind(first.url, retrying=QUICK) as client:
        job = client.create_job("demo", **OPTIONS)
        events = client.events(job)
        kinds = [next(events).kind]
        first.do(engine.preview, job.id)
        kinds += [next(events).kind]
        first.stop()
        second = Served(engine, port=int(first.url.rpartition(":")[2]))
        try:
            second.later(0.05, engine.finish, job.id)
            kinds += [each.kind for each in events]
        finally:
            second.stop()
    assert kinds == KINDS


def test_a_server_that_does_not_come_back(engine, kind):
    server = Served(engine)
    with kind(server.url, retrying=QUICK) as client:
        events = client.events(client.create_job("demo", **OPTIONS))
        next(events)
        server.stop()
        with pytest.raises(UnreachableError):
            next(events)


def test_a_stopped_consumer_leaves_no_stream_open(served, engine):
    with Client(served.url) as client:
        for _ in client.events(client.create_job("demo", **OPTIONS)):
            break
    for _ in range(100):
        if not served.do(lambda: len(served.app.state.context.streams)):
            return
        served.do(lambda: None)
    pytest.fail("a stream is still open")


# Pure --------------------------------------------------------------------------------------------------------------


def test_lines_are_parsed_to_events():
    lines = LineParser()
    text = ["id: 7", "event: plan", 'data: {"job": "v", "at_s": 2,', 'data:"unit": 1}', ": ping"]
    assert [lines.take(line) for line in text] == [None] * 5
    assert lines.take("") == Event(seq=7, kind="plan", job="v", at_s=2.0, data={"unit": 1})
    assert lines.take("") is None
    with pytest.raises(ApiError, match="does not contain a job's events"):
        [lines.take(line) for line in ("data: hello", "")]


def stream(clock, timeout_s=None, after=0):
    return EventSource("job_x", after, QUICK, timeout_s, clock=lambda: clock[0])


def feed(stream, seq, kind):
    data = '{"job": "job_x", "at_s": 1}'
    return [stream.take(line) for line in (f"id: {seq}", f"event: {kind}", f"data: {data}", "")][-1]


def test_a_connection_resumes_after_the_last_event():
    it = stream([0.0], after=3)
    assert it.call().headers["Last-Event-ID"] == "3"
    assert feed(it, 3, "plan") is None, "already known"
    assert feed(it, 5, "plan").seq == 5
    assert it.call().headers["Last-Event-ID"] == "5"
    assert feed(it, 6, "completed").is_final
    assert it.is_over


def test_an_incomplete_event_is_dropped_with_its_connection():
    it = stream([0.0])
    it.take("id: 9")
    it.take('data: {"job"')
    it.call()
    assert feed(it, 1, "plan").seq == 1


def test_waits_double_until_an_event_arrives():
    it = stream([0.0])
    waits = []
    for _ in range(3):
        it.disconnected("reset", "http://x")
        waits.append(it.wait_s)
    assert waits == [0.01, 0.02, 0.04]
    with pytest.raises(UnreachableError, match="reset"):
        it.disconnected("reset", "http://x")
    feed(it, 1, "plan")
    it.disconnected("reset", "http://x")
    assert it.wait_s == 0.01
    it.call()
    assert it.wait_s == 0.0


def test_responses_that_are_not_streams():
    it = stream([0.0])
    it.refused(Response(status=429, headers={"retry-after": "0.3"}))
    assert it.wait_s == 0.3
    with pytest.raises(ApiError):
        it.refused(Response(status=429, headers={"retry-after": "30"}))
    it.refused(Response(status=204))
    assert it.is_over


def test_time_limits_shorten_the_silence():
    clock = [0.0]
    it = stream(clock, timeout_s=60)
    it.call()
    assert it.silence_s == IDLE_S
    assert not it.is_near_timeout
    clock[0] = 30.0
    assert it.is_near_timeout, "silence may last for 45 s, there are 30 s left"
    it.call()
    assert it.silence_s == 30.0
    assert not it.is_near_timeout
    clock[0] = 60.0
    for ask in (it.call, lambda: it.disconnected("silence", "http://x")):
        with pytest.raises(TimeoutError):
            ask()


def test_progress_never_decreases_and_counts_frames_once():
    share = Progress(4)
    assert share.update(event(1, "queued")) == 0
    assert [share.update(event(2 + i, "preview_frame", index=i)) for i in range(4)][-1] == pytest.approx(0.1)
    share.update(event(6, "plan", unit=1, targets=[0, 3]))
    assert share.update(event(7, "progress", unit=1, done=1, total=2)) == pytest.approx(0.1 + 0.9 / 4)
    assert share.update(event(8, "frame_refined", index=0, unit=1)) == pytest.approx(0.1 + 0.9 * 2 / 4)
    assert share.update(event(9, "frame_refined", index=3, unit=1)) == pytest.approx(0.1 + 0.9 * 2 / 4)
    assert share.update(event(10, "progress", unit=2, done=0, total=0)) == pytest.approx(0.1 + 0.9 * 2 / 4)
    assert share.update(event(11, "completed")) == 1.0
