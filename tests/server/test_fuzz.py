"""Fuzzing: no input leads to a 500, a hang, or a path or traceback in a response.

Requests are made from the OpenAPI document by schemathesis, uploads by hypothesis.
"""

import json
import re
from typing import get_args

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from server_fakes import open_engine, parts, png, transforms, zipped

from sphinx_nvs.server.api.requests import PathName
from sphinx_nvs.server.app import create_app
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig, UploadLimits

LEAKS = re.compile(r"Traceback|File \"|site-packages|/tmp/|/home/|/root/|sphinx_nvs[./]|0x[0-9a-f]{8,}")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
UNHURRIED = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
    "database": None,
    "derandomize": True,
}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """An app whose jobs finish at once."""
    engine = open_engine(tmp_path_factory.mktemp("fuzz"), is_eager=True)
    upload = UploadLimits(files=30, body_bytes=1 << 20, unpacked_bytes=1 << 20, photo_pixels=100_000)
    key = KeyLimits(rate_per_s=1e6, burst=10**9, stored_scenes=10**6, running_jobs=10**6)
    app = create_app(
        engine, ServerConfig(has_demo=False, upload=upload, key=key, request_s=20.0, hosts=("testserver",))
    )
    app.state.engine = engine
    return app


def check_answer(answer):
    """Checks that a response is not a server error, leaks nothing, and is a problem document if it is an error."""
    assert answer.status_code not in (500, 502, 504), answer.text
    kind = answer.headers.get("content-type", "")
    # schemathesis' responses have lists of values.
    kind = kind if isinstance(kind, str) else kind[0]
    if kind.startswith(("application/json", "application/problem+json", "text/")):
        assert not LEAKS.search(answer.text), answer.text
    if answer.status_code >= 400:
        assert "application/problem+json" in kind
        assert json.loads(answer.text)["status"] == answer.status_code


def fuzz(schema, cases, newest, **sending):
    """Runs schemathesis over every operation; returns the number of requests.

    Args:
        schema: of the server.
        cases: most requests of an operation.
        newest: gives the id of an existing job, which half of the requests use.
        sending: how requests are sent.
    """
    counted = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy() | operation.as_strategy(schemathesis.GenerationMode.NEGATIVE))
        @settings(max_examples=cases, **UNHURRIED)
        def run_one(case):
            nonlocal counted
            counted += 1
            if counted % 10:
                # Generated keys are refused before anything else is tested.
                case.headers.pop("Authorization", None)
            for name in ("job_id", "video_id"):
                if name in case.path_parameters and counted % 2:
                    case.path_parameters[name] = newest() or "job_0"
            if isinstance(case.body, dict) and "scene" in case.body and counted % 4:
                case.body["scene"] = "demo"
            answer = case.call(**sending)
            check_answer(answer)
            case.validate_response(answer, checks=CHECKS)

        run_one()
    return counted


def fuzz_app(app, cases):
    """Runs `fuzz` on an app in this process."""
    client = TestClient(app, base_url="http://localhost")

    def newest():
        known = app.state.engine.store.list_jobs(limit=1)
        body = {"scene": "demo", "path": "move-forward", "num_frames": 2, "size": "32x32"}
        return known[0].id if known else client.post("/v1/jobs", json=body).json()["id"]

    # The first upload starts a process that imports much, which takes long on a busy machine.
    return fuzz(schemathesis.openapi.from_asgi("/openapi.json", app), cases, newest, timeout=60)


def test_requests_generated_from_the_document(app):
    assert fuzz_app(app, 5) >= 100


@pytest.mark.slow
def test_many_requests_generated_from_the_document(app):
    assert fuzz_app(app, 80) >= 1000


NUMBERS = st.one_of(st.floats(-2, 2), st.sampled_from([0.0, 1e-30, 1e9, -1e9]))
PATHS = st.one_of(
    st.sampled_from(get_args(PathName)),
    st.fixed_dictionaries(
        {"name": st.sampled_from(get_args(PathName))},
        optional={
            "median_depth": st.floats(1e-6, 1e6),
            "look_at": st.lists(NUMBERS, min_size=3, max_size=3),
            "zoom_factor": st.floats(0.01, 100),
            "spiral_radii": st.lists(NUMBERS, min_size=3, max_size=3),
        },
    ),
)
BODIES = st.fixed_dictionaries(
    {
        "path": PATHS,
        "num_frames": st.integers(1, 4),
        "size": st.sampled_from(["32x32", "64x32", "96x64"]),
        "seed": st.integers(0, 2**63 - 1),
    },
    optional={
        "quality": st.floats(0, 1),
        "deadline_s": st.floats(1e-9, 1e7),
        "min_quality": st.floats(0, 0.5),
        "fps": st.floats(1, 240),
        "priority": st.integers(-10, 10),
    },
)
"""Valid options of a job, with small values."""


def wish_fuzz(client, cases):
    """Sends valid requests to every route that takes them; returns their number."""
    counted = 0

    @given(body=BODIES)
    @settings(max_examples=cases, **UNHURRIED)
    def send(body):
        nonlocal counted
        body = {"scene": "demo", **body}
        size = body.pop("size")
        bodies = {
            "/v1/jobs:quote": {"size": size, **body},
            "/v1/jobs": {"size": size, **body},
            "/v1/videos": {"size": size, "extra_body": body},
        }
        for address, body in bodies.items():
            answer = client.post(address, json=body)
            check_answer(answer)
            assert answer.status_code in (200, 202, 422, 429), answer.text
            counted += 1

    send()
    return counted


def test_generated_job_requests(app):
    assert wish_fuzz(TestClient(app, base_url="http://localhost", raise_server_exceptions=False), 15) >= 45


NAMES = st.one_of(
    st.sampled_from(
        ["0.png", "1.png", "transforms.json", "images/0.png", "../0.png", "/etc/passwd", "sparse/0/images.txt"]
    ),
    st.text(max_size=40),
)
DAMAGE = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6)


def damaged(data, damage, keep):
    """Changes some bytes and truncates the end."""
    data = bytearray(data)
    for at, value in damage:
        data[at % len(data)] = value
    return bytes(data[: max(1, int(len(data) * keep))])


CONTENT = st.one_of(
    st.binary(max_size=200),
    st.builds(damaged, st.just(png()), DAMAGE, st.floats(0.2, 1.0)),
    st.integers(1, 3),
    st.just(transforms().encode()),
)
JSON_LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10))
VALUES = st.recursive(JSON_LEAVES, lambda inner: st.lists(inner, max_size=5), max_leaves=20)
FIELDS = st.sampled_from(
    ["w", "h", "fl_x", "cx", "frames", "camera_model", "applied_transform", "k1", "camera_angle_x"]
)


def upload_fuzz(client, cases):
    """Sends invalid uploads of many kinds; returns their number."""
    counted = 0
    zip_type = {"Content-Type": "application/zip"}

    def send(answer):
        nonlocal counted
        counted += 1
        check_answer(answer)

    @given(files=st.dictionaries(NAMES, CONTENT, max_size=5), damage=DAMAGE, keep=st.floats(0.5, 1.0))
    @settings(max_examples=cases, **UNHURRIED)
    def archives(files, damage, keep):
        try:
            # A number stands for this many hundred thousand zeros.
            data = zipped({n: b"\0" * 100_000 * c if isinstance(c, int) else c for n, c in files.items()})
        except (ValueError, IndexError):
            return
        send(client.post("/v1/scenes", content=damaged(data, damage, keep), headers=zip_type))

    @given(damage=DAMAGE, keep=st.floats(0.3, 1.0))
    @settings(max_examples=cases, **UNHURRIED)
    def photos(damage, keep):
        photo = ("images", ("0.png", damaged(png(), damage, keep)))
        send(client.post("/v1/scenes", files=[photo, *parts(1)[1:]]))

    @given(field=FIELDS, value=VALUES, in_frame=st.booleans())
    @settings(max_examples=2 * cases, **UNHURRIED)
    def cameras(field, value, in_frame):
        data = json.loads(transforms())
        (data["frames"][0] if in_frame else data)[field] = value
        send(client.post("/v1/scenes", files=[*parts()[:2], ("cameras", (None, json.dumps(data)))]))

    @given(value=VALUES)
    @settings(max_examples=cases, **UNHURRIED)
    def poses(value):
        data = json.loads(transforms())
        data["frames"][1]["transform_matrix"] = value
        send(client.post("/v1/scenes", files=[*parts()[:2], ("cameras", (None, json.dumps(data)))]))

    @given(body=st.binary(max_size=400), boundary=st.sampled_from(["b", "", "x" * 80, "\xff", "b; charset=utf-7"]))
    @settings(max_examples=cases, **UNHURRIED)
    def forms(body, boundary):
        kind = f"multipart/form-data; boundary={boundary}".encode("latin-1")
        wrapped = (
            b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n' + body + b"\r\n--b--\r\n"
        )
        send(client.post("/v1/scenes", content=wrapped, headers={"Content-Type": kind}))

    for attack in (archives, photos, cameras, poses, forms):
        attack()
    return counted


def fuzz_uploads_of(app, cases):
    """Runs `attack` on an app in this process; its folder then holds only accepted scenes."""
    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    counted = upload_fuzz(client, cases)
    library, store = app.state.engine.library, app.state.engine.store
    folders = {path.name for path in library.scenes_folder.iterdir()}
    kept = {row.path.rsplit("/", 1)[-1] for row in store.list_scenes(limit=10_000)}
    assert folders == kept, "refused uploads leave no files"
    return counted


def test_invalid_uploads_of_many_kinds(app):
    assert fuzz_uploads_of(app, 8) >= 40


@pytest.mark.slow
def test_many_invalid_uploads_of_many_kinds(app):
    assert fuzz_uploads_of(app, 150) >= 800
