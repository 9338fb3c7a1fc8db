"""What every request passes: ids, problem documents, limits on size, rate, time and concurrency."""

import asyncio
import contextlib
import json
import logging
import threading

import pytest
import structlog
from server_fakes import QUOTE, run

from sphinx_nvs.server.app import create_app
from sphinx_nvs.server.log_setup import configure_logs
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig, UploadLimits

BODY = {"scene": "demo", "num_frames": 2, "size": "64x64"}


@contextlib.contextmanager
def logging_to(path, **settings):
    """Writes logs of this process to a file inside the block."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    with path.open("w") as stream:
        configure_logs(stream, **settings)
        yield path
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def logs(tmp_path):
    """Returns the log lines so far."""
    with logging_to(tmp_path / "log") as path:
        yield lambda: [json.loads(line) for line in path.read_text().splitlines()]


def problem(answer, status):
    """Returns the problem document of a response."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == status
    assert found["type"].startswith("urn:sphinx-nvs:problem:")
    assert found["instance"] == f"urn:sphinx-nvs:request:{answer.headers['x-request-id']}"
    return found


def test_requests_have_ids(client):
    assert len(client.get("/healthz").headers["x-request-id"]) == 16
    assert client.get("/healthz", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    odd = client.get("/healthz", headers={"X-Request-ID": "x" * 200}).headers["x-request-id"]
    assert odd != "x" * 200


def test_extra_fields_do_not_replace_a_log_lines_level_and_name(logs):
    logging.getLogger("sphinx_nvs.engine").warning(
        "job ended", extra={"level": "preview", "logger": "me", "job_id": "j"}
    )
    (line,) = logs()
    assert (line["level"], line["logger"]) == ("warning", "sphinx_nvs.engine")
    assert (line["event"], line["job_id"]) == ("job ended", "j")


def test_unknown_addresses_and_methods(client):
    assert problem(client.get("/nowhere"), 404)["detail"] == ("There is no such URL; /docs lists all of them.")
    answer = client.put("/v1/jobs")
    problem(answer, 405)
    assert set(answer.headers["allow"].split(", ")) <= {"GET", "POST"}
    problem(client.get("/v1/jobs/"), 404)
    problem(client.request("BREW", "/v1/jobs"), 405)


def test_an_internal_error_is_described_only_in_the_log(client, engine, logs):
    def fail():
        raise RuntimeError("secret of /etc/passwd")

    engine.capacity = fail
    answer = client.get("/v1/capacity", headers={"X-Request-ID": "find-me"})
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "log" in problem(answer, 500)["detail"]
    lines = [line for line in logs() if line.get("request_id") == "find-me"]
    assert any("secret of" in json.dumps(line.get("exception")) for line in lines)
    assert [line["status"] for line in lines if line["event"] == "request"] == [500]


@pytest.mark.parametrize("is_json", [True, False])
def test_a_traceback_in_the_log_contains_no_api_key(client, engine, tmp_path, is_json):
    def fail():
        raise RuntimeError("no capacity")

    _, secret = engine.store.add_key("a", now=engine.now)
    engine.capacity = fail
    with logging_to(tmp_path / "log", is_json=is_json) as path:
        answer = client.get("/v1/capacity", headers={"Authorization": f"Bearer {secret}"})
        problem(answer, 500)
        logging.getLogger("sphinx_nvs.engine").warning("odd", exc_info=RuntimeError("of an engine"))
        text = path.read_text()
    assert "no capacity" in text
    assert "of an engine" in text
    assert "test_middleware.py" in text, "the traceback is logged"
    assert secret not in text
    assert secret[-16:] not in text


def vanishing(app, path, kind, body):
    """Sends a request whose client disconnects in its body; returns the messages of the response."""
    messages = [{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", kind.encode()), (b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    scope |= {"http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("x", 80), "root_path": ""}
    run(app(scope, receive, send))
    return sent


FORM_BEGUN = b'--b\r\nContent-Disposition: form-data; name="images"; filename="0.png"\r\n\r\nxxxx'


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/v1/scenes", "application/zip", b"PK"),
        ("/v1/scenes", "multipart/form-data; boundary=b", FORM_BEGUN),
        ("/v1/videos", "application/json", b'{"prompt"'),
        ("/v1/videos", "multipart/form-data; boundary=b", FORM_BEGUN),
        ("/v1/jobs", "application/json", b'{"scene"'),
    ],
)
def test_a_disconnect_during_the_body_is_logged_as_499(engine, logs, path, kind, body):
    before = set(engine.library.scenes_folder.iterdir())
    assert vanishing(create_app(engine, ServerConfig(has_demo=False)), path, kind, body) == []
    (line,) = logs()
    assert (line["event"], line["status"], line["route"]) == ("request", 499, path)
    assert set(engine.library.scenes_folder.iterdir()) == before


def test_one_log_line_per_request(client, logs):
    client.post("/v1/jobs", json=BODY, headers={"X-Request-ID": "r1"})
    (line,) = [line for line in logs() if line["event"] == "request"]
    assert (line["request_id"], line["route"], line["status"], line["key_id"]) == ("r1", "/v1/jobs", 202, "anonymous")
    assert (line["method"], line["level"], line["logger"]) == ("POST", "info", "sphinx_nvs.server")
    assert line["ms"] >= 0


def test_too_large_bodies_are_refused(make_client):
    client = make_client(json_bytes=1000)
    problem(client.post("/v1/jobs", json={**BODY, "scene": "x" * 2000}), 413)

    def endless():
        for _ in range(10_000):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    problem(client.post("/v1/jobs", content=endless(), headers=headers), 413)
    problem(client.post("/v1/videos", content=endless(), headers=headers), 413)


def test_the_request_rate_is_limited(make_client):
    client = make_client(key=KeyLimits(rate_per_s=0.5, burst=3))
    answers = [client.get("/v1/models") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    problem(answers[-1], 429)
    assert answers[-1].headers["retry-after"] == "2"
    assert client.get("/healthz").status_code == 200, "probes are not counted"


def test_slow_responses_end_with_503(make_client, engine):
    async def hang(spec):
        await asyncio.sleep(60)

    engine.quote = hang
    answer = make_client(request_s=0.2).post("/v1/jobs:quote", json=BODY)
    problem(answer, 503)
    assert answer.headers["retry-after"] == "5"


def test_a_body_that_does_not_arrive_ends_with_408(engine):
    scope_headers = [(b"content-type", b"application/zip"), (b"host", b"localhost")]
    app = create_app(engine, ServerConfig(has_demo=False, upload=UploadLimits(seconds=1.0)))
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/scenes", "headers": scope_headers, "query_string": b""}
    scope |= {"http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("x", 80), "root_path": ""}
    run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["type"].endswith("timeout")


def test_the_number_of_concurrent_requests_is_limited(make_client, engine):
    gate, entered = threading.Event(), threading.Event()

    async def wait(spec):
        entered.set()
        while not gate.is_set():
            await asyncio.sleep(0.01)
        return QUOTE

    engine.quote = wait
    client = make_client(connections=1)
    first = threading.Thread(target=lambda: client.post("/v1/jobs:quote", json=BODY))
    first.start()
    assert entered.wait(10)
    try:
        assert problem(client.get("/v1/scenes"), 503)
        assert client.get("/healthz").status_code == 200
    finally:
        gate.set()
        first.join()
    assert client.get("/healthz").status_code == 200


def test_requests_whose_bodies_do_not_arrive_take_nobodys_place(engine):
    """The server does nothing for them: of one request that may be open, the next has the place."""
    app = create_app(engine, ServerConfig(has_demo=False, connections=1))
    json_type = [(b"content-type", b"application/json"), (b"host", b"localhost"), (b"content-length", b"100")]
    base = {"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "query_string": b""}
    base |= {"client": ("127.0.0.1", 1), "server": ("localhost", 80)}

    async def scene():
        statuses, waited, waiting = [], [], []

        async def never():
            waited.append(True)
            await asyncio.sleep(60)

        async def send(message):
            statuses.append(message.get("status"))

        post = {**base, "method": "POST", "path": "/v1/jobs", "headers": json_type}
        for number in range(3):
            waiting.append(asyncio.create_task(app({**post}, never, send)))
            while len(waited) <= number and not statuses:
                await asyncio.sleep(0.01)
        assert statuses == []
        await app({**base, "method": "GET", "path": "/v1/scenes", "headers": json_type[1:2]}, never, send)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return statuses[0]

    assert run(scene()) == 200


def test_pages_of_other_sites_may_not_change_anything(make_client, engine):
    elsewhere = {"Origin": "https://evil.example"}
    client = make_client()
    problem(client.post("/v1/jobs", json=BODY, headers=elsewhere), 403)
    assert "access-control-allow-origin" not in client.get("/v1/jobs", headers=elsewhere).headers
    assert client.post("/v1/jobs", json=BODY, headers={"Origin": "http://localhost"}).status_code == 202
    open_client = make_client(cors_origins=("https://good.example",))
    good = {"Origin": "https://good.example"}
    answer = open_client.post("/v1/jobs", json=BODY, headers=good)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, "https://good.example")
    preflight = {**elsewhere, "Access-Control-Request-Method": "POST"}
    problem(open_client.options("/v1/jobs", headers=preflight), 400)
    assert open_client.options("/v1/jobs", headers={**preflight, **good}).status_code == 200


def test_cors_is_off_by_default(client):
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    answers = [client.options("/v1/jobs", headers=preflight), client.get("/v1/jobs", headers=preflight)]
    assert [answer.status_code for answer in answers] == [405, 200]
    for answer in answers:
        assert [name for name in answer.headers if name.startswith("access-control")] == []


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.0.0.1:1", "[::1]:8000"]
)
def test_loopback_answers_under_its_own_names(client, host):
    assert client.get("/v1/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"],
)
def test_loopback_refuses_other_names(client, host):
    for method, address in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/metrics"), ("GET", "/healthz")):
        answer = client.request(method, address, headers={"Host": host, "Origin": f"http://{host}"})
        assert "hosts" in problem(answer, 421)["detail"]


def test_accepted_names_can_be_configured(make_client):
    def status(name, **settings):
        return make_client(require_keys=False, **settings).get("/v1/jobs", headers={"Host": name}).status_code

    assert status("nvs.example:80", hosts=("nvs.example",)) == 200
    assert status("localhost", hosts=("nvs.example",)) == 200
    assert status("evil.example", hosts=("nvs.example",)) == 421
    assert status("evil.example", hosts=("*",)) == 200
    assert status("127.0.0.2", host="127.0.0.2") == 200
    assert status("evil.example", host="0.0.0.0") == 200
    assert status("evil.example", host="0.0.0.0", hosts=("nvs.example",)) == 421
    assert status("localhost", host="0.0.0.0", hosts=("nvs.example",)) == 421


def test_a_draining_server_refuses_new_work(client):
    client.app.state.context.is_draining = True
    for answer in (client.post("/v1/jobs", json=BODY), client.post("/v1/scenes"), client.get("/readyz")):
        problem(answer, 503)
        assert answer.headers["retry-after"] == "10"
    assert client.get("/v1/jobs").status_code == 200


def test_quoted_input_is_short_and_encodable(client):
    body = json.dumps({"scene": "x" * 100_000, "quality": "\ud800", "size": {"a": [1] * 1000}})
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 422)
    assert len(answer.content) < 3000
