"""Retries: which requests are sent again, after which waits."""

import httpx
import pytest
from client_fakes import QUICK

from sphinx_nvs.client import ApiError, Retrying, UnreachableError
from sphinx_nvs.client.calls import Call, NoResponse, Response

JOB = {
    "id": "job_x", "status": "queued", "level": "none", "progress": 0.0, "scene": "demo", "num_frames": 2, "width": 64,
    "height": 64, "fps": 24, "seed": 0, "priority": 0, "quality": None, "quote": None, "reason": "",
    "created_at": "2026-11-23T11:00:00Z", "finished_at": None, "expires_at": None, "something": "new",
}  # fmt: skip


def network(kind, outcomes):
    """Returns a client whose requests have these outcomes in order, and the list of requests."""
    sent, left = [], list(outcomes)

    def answer(request):
        request.read()
        sent.append(request)
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return kind("http://test", http=httpx.MockTransport(answer), retrying=QUICK), sent


def busy(status=503, after="0"):
    return httpx.Response(status, headers={"Retry-After": after}, json={"title": "busy", "status": status})


def accepted():
    return httpx.Response(202, json=JOB)


@pytest.fixture
def photo():
    return {"images": [b"\x89PNG"], "cameras": {"frames": []}}


def test_creating_a_job_is_retried_with_the_same_key(kind):
    client, sent = network(kind, [busy(), httpx.ReadError("reset"), httpx.Response(502), accepted()])
    with client:
        assert client.create_job("demo").id == "job_x"
    assert len(sent) == 4
    assert len({request.headers["Idempotency-Key"] for request in sent}) == 1
    assert len({request.content for request in sent}) == 1


def test_calls_have_different_keys(kind):
    client, sent = network(kind, [accepted(), accepted()])
    with client:
        client.create_job("demo")
        client.create_job("demo")
    assert sent[0].headers["Idempotency-Key"] != sent[1].headers["Idempotency-Key"]


def test_attempts_are_limited(kind):
    client, sent = network(kind, [busy() for _ in range(9)])
    with client, pytest.raises(ApiError) as caught:
        client.capacity()
    assert (len(sent), caught.value.status, caught.value.title) == (QUICK.attempts, 503, "busy")


def test_long_waits_are_left_to_the_caller(kind):
    client, sent = network(kind, [busy(429, "3600")])
    with client, pytest.raises(ApiError) as caught:
        client.create_job("demo")
    assert (len(sent), caught.value.retry_after_s) == (1, 3600.0)


def test_input_errors_are_not_retried(kind):
    client, sent = network(kind, [httpx.Response(422, json={"detail": "size: it is 3; give more"})])
    with client, pytest.raises(ApiError, match="size: it is 3"):
        client.create_job("demo")
    assert len(sent) == 1


def test_an_upload_is_retried_only_if_it_was_not_sent(kind, photo):
    client, sent = network(kind, [httpx.ReadError("reset")])
    with client, pytest.raises(UnreachableError, match="reset"):
        client.upload_scene(**photo)
    client, sent = network(kind, [httpx.ConnectError("refused"), busy(), httpx.Response(504)])
    with client, pytest.raises(ApiError):
        client.upload_scene(**photo)
    assert len(sent) == 3
    assert b"\x89PNG" in sent[1].content, "files are read again"


def test_a_cancellation_that_may_have_arrived_is_not_retried(kind):
    """A second request would delete the job that the first one cancelled."""
    client, sent = network(kind, [httpx.Response(200, json=JOB), httpx.ReadError("reset")])
    with client, pytest.raises(UnreachableError):
        client.cancel("job_x")
    assert [request.method for request in sent] == ["GET", "DELETE"]


def test_timeouts_are_reported(kind):
    client, _ = network(kind, [httpx.ReadTimeout("") for _ in range(4)])
    with client, pytest.raises(UnreachableError, match="does not answer in time"):
        client.models()


def test_responses_of_other_servers(kind):
    client, _ = network(kind, [httpx.Response(200, text="<html>"), httpx.Response(404, text="<html>")])
    with client:
        with pytest.raises(ApiError, match=r"not from a sphinx-nvs server"):
            client.capacity()
        with pytest.raises(ApiError, match="HTTP 404") as caught:
            client.capacity()
    assert (caught.value.type, caught.value.errors) == ("about:blank", ())


@pytest.mark.parametrize(
    ("outcome", "repeatable", "wait_s"),
    [
        (Response(status=503), True, 0.25),
        (Response(status=503, headers={"retry-after": "2"}), False, 2.0),
        (Response(status=503, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), True, 0.25),
        (Response(status=429, headers={"retry-after": "21"}), True, None),
        (Response(status=502), True, 0.25),
        (Response(status=502), False, None),
        (Response(status=500), True, None),
        (Response(status=200), True, None),
        (NoResponse(reason="", was_sent=True, address=""), True, 0.25),
        (NoResponse(reason="", was_sent=True, address=""), False, None),
        (NoResponse(reason="", was_sent=False, address=""), False, 0.25),
    ],
)
def test_which_outcomes_are_retried(outcome, repeatable, wait_s):
    call = Call(method="GET", path="/", read=lambda answer: None, is_repeatable=repeatable)
    assert Retrying().wait_s(call, outcome, 0) == wait_s


def test_waits_double_up_to_the_longest():
    call = Call(method="GET", path="/", read=lambda answer: None)
    waits = [Retrying(attempts=10).wait_s(call, Response(status=503), failures) for failures in range(10)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, None]
