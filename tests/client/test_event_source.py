"""Events as they come: order, shares, time limits, connections that break, servers that start again."""

import pytest
from client_fakes import QUICK, Served

from sphinx_nvs.client import ApiError, Client, Event, UnreachableError
from sphinx_nvs.client.calls import Response
from sphinx_nvs.client.event_source import IDLE_S, EventSource, LineParser, Progress

WISH = {"path": "move-forward", "num_frames": 2, "size": "64x64"}
KINDS = ["queued", "preview_frame", "preview_frame", "plan", "frame_refined", "frame_refined", "completed"]


def event(seq, kind, **data):
    return Event(seq=seq, kind=kind, job="job_x", at_s=1.0, data=data)


def test_events_as_they_happen(served, client, engine):
    view = client.create_job("demo", **WISH)
    kinds = []
    for each in client.events(view):
        kinds.append(each.kind)
        assert each.job == view.id
        if each.kind == "queued":
            served.later(0.15, engine.preview, view.id)
            served.later(0.2, engine.finish, view.id)
    assert kinds == KINDS
    assert each.is_final


def test_events_behind_a_number(served, client, engine):
    view = client.create_job("demo", **WISH)
    served.do(engine.preview, view.id)
    served.do(engine.finish, view.id)
    events = list(client.events(view))
    assert list(client.events(view.id, after=events[2].seq)) == events[3:]
    assert list(client.events(view, after=events[-1].seq)) == []


def test_waiting_tells_how_far_it_is(served, client, engine):
    view = client.create_job("demo", **WISH)
    served.later(0.05, engine.preview, view.id)
    served.later(0.1, engine.finish, view.id)
    told = []
    done = client.wait(view, progress=lambda share, event: told.append((event.kind, share)), timeout_s=20)
    assert done.status == "completed"
    assert [kind for kind, _ in told] == KINDS
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[2:] == pytest.approx([0.1, 0.1, 0.55, 1.0, 1.0])


def test_a_time_limit(client):
    view = client.create_job("demo", **WISH)
    with pytest.raises(TimeoutError, match=r"has not ended within 0\.3 s"):
        client.wait(view, timeout_s=0.3)
    assert client.job(view).status == "queued"


def test_no_such_view(client):
    with pytest.raises(ApiError) as caught:
        next(client.events("job_nowhere"))
    assert caught.value.status == 404


def test_a_stream_outlives_its_server(engine, kind):
    first = Served(engine)
    with kind(first.url, retrying=QUICK) as client:
        view = client.create_job("demo", **WISH)
        events = client.events(view)
        kinds = [next(events).kind]
        first.do(engine.preview, view.id)
        kinds += [next(events).kind]
        first.stop()
        second = Served(engine, port=int(first.url.rpartition(":")[2]))
        try:
            second.later(0.05, engine.finish, view.id)
            kinds += [each.kind for each in events]
        finally:
            second.stop()
    assert kinds == KINDS


def test_a_server_that_stays_away(engine, kind):
    server = Served(engine)
    with kind(server.url, retrying=QUICK) as client:
        events = client.events(client.create_job("demo", **WISH))
        next(events)
        server.stop()
        with pytest.raises(UnreachableError):
            next(events)


def test_a_consumer_that_stops_leaves_no_stream_behind(served, engine):
    with Client(served.url) as client:
        for _ in client.events(client.create_job("demo", **WISH)):
            break
    for _ in range(100):
        if not served.do(lambda: len(served.app.state.context.streams)):
            return
        served.do(lambda: None)
    pytest.fail("a stream is still open")


# Pure --------------------------------------------------------------------------------------------------------------


def test_lines_become_events():
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


def test_a_stream_goes_on_behind_its_last_event():
    it = stream([0.0], after=3)
    assert it.call().headers["Last-Event-ID"] == "3"
    assert feed(it, 3, "plan") is None, "known already"
    assert feed(it, 5, "plan").seq == 5
    assert it.call().headers["Last-Event-ID"] == "5"
    assert feed(it, 6, "completed").is_final
    assert it.is_over


def test_half_an_event_is_forgotten_with_its_connection():
    it = stream([0.0])
    it.take("id: 9")
    it.take('data: {"view"')
    it.call()
    assert feed(it, 1, "plan").seq == 1


def test_waits_double_until_something_comes():
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


def test_answers_that_are_no_stream():
    it = stream([0.0])
    it.refused(Response(status=429, headers={"retry-after": "0.3"}))
    assert it.wait_s == 0.3
    with pytest.raises(ApiError):
        it.refused(Response(status=429, headers={"retry-after": "30"}))
    it.refused(Response(status=204))
    assert it.is_over


def test_time_limits_end_silences():
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


def test_shares_never_fall_and_count_frames_once():
    share = Progress(4)
    assert share.update(event(1, "queued")) == 0
    assert [share.update(event(2 + i, "preview_frame", index=i)) for i in range(4)][-1] == pytest.approx(0.1)
    share.update(event(6, "plan", unit=1, targets=[0, 3]))
    assert share.update(event(7, "progress", unit=1, done=1, total=2)) == pytest.approx(0.1 + 0.9 / 4)
    assert share.update(event(8, "frame_refined", index=0, unit=1)) == pytest.approx(0.1 + 0.9 * 2 / 4)
    assert share.update(event(9, "frame_refined", index=3, unit=1)) == pytest.approx(0.1 + 0.9 * 2 / 4)
    assert share.update(event(10, "progress", unit=2, done=0, total=0)) == pytest.approx(0.1 + 0.9 * 2 / 4)
    assert share.update(event(11, "completed")) == 1.0
