"""The same fuzzing of a whole server in its own process: uvicorn, engine, store and the embedded models.

Figures of a run are written to the file that SPHINX_FUZZ_FIGURES names, if it names one.
"""

import contextlib
import json
import os
import random
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import httpx
import pytest
import requests
import schemathesis
from server_fakes import parts, transforms, zipped
from test_fuzz import LEAKS, check_answer, fuzz, upload_fuzz, wish_fuzz

from sphinx_nvs.load_testing.server_process import kill_decoder_of

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from pathlib import Path
from sphinx_nvs.engine.types.job_validation import Limits
from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.engine.scheduler.types import SchedulerConfig
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig, UploadLimits
from sphinx_nvs.server.log_setup import configure_logs
from sphinx_nvs.server.uvicorn_runner import serve

configure_logs()
engine = EngineConfig(
    folder=Path(sys.argv[1]),
    executor="inline",
    window=5,
    options={"num_steps": 3},
    limits=Limits(max_views=4, max_pixels=40_000),
    scheduler=SchedulerConfig(max_queue=20),
    sweep_s=1.0,
)
server = ServerConfig(
    port=0,
    upload=UploadLimits(files=30, body_bytes=1 << 20, unpacked_bytes=1 << 20, photo_pixels=100_000, seconds=30.0),
    key=KeyLimits(rate_per_s=1e6, burst=10**9, stored_scenes=10**6),
    request_s=20.0,
    drain_s=0.0,
)
serve(engine, server, lambda url: sys.stdout.write(url + "\\n") and sys.stdout.flush())
"""


class Counting(requests.Session):
    """Counts responses by status, and records the longest time until one started."""

    def __init__(self):
        super().__init__()
        self.statuses, self.longest_s = Counter(), 0.0

    def request(self, *args, **kwargs):
        answer = super().request(*args, **kwargs)
        self.statuses[answer.status_code] += 1
        self.longest_s = max(self.longest_s, answer.elapsed.total_seconds())
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server's process, its address, its folder and its log."""
    folder = tmp_path_factory.mktemp("real")
    log = folder / "log"
    with log.open("w") as stream:
        command = [sys.executable, "-c", SCRIPT, str(folder / "engine")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True)
        try:
            url = process.stdout.readline().strip()
            assert url, log.read_text()
            wait(lambda: httpx.get(f"{url}/readyz").status_code == 200)
            yield process, url, folder / "engine", log
        finally:
            process.terminate()
            assert process.wait(60) == 0
            process.stdout.close()


def wait(holds, seconds=120):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.1)


def figures(name, **values):
    """Keeps the figures of a run if a file is configured."""
    place = os.environ.get("SPHINX_FUZZ_FIGURES")
    if place:
        with Path(place).open("a") as file:
            file.write(json.dumps({"attack": name, **values}) + "\n")


def is_well(server):
    """Checks that the process is alive and healthy, and has logged no error."""
    process, url, _, log = server
    assert process.poll() is None
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok", "detail": ""}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    failures = [line for line in lines if line["level"] in ("error", "critical") or "exception" in line]
    assert failures == [], "the server logged errors"


def test_requests_generated_from_the_document(server):
    _, url, _, _ = server
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    with Counting() as session, httpx.Client(base_url=url) as client:

        def newest():
            jobs = client.get("/v1/jobs?limit=1").json()["data"]
            return jobs[0]["id"] if jobs else completed_job(client)

        started = time.monotonic()
        cases = int(os.environ.get("SPHINX_FUZZ_CASES", "50"))
        counted = fuzz(schema, cases, newest, session=session, timeout=30)
        seconds = time.monotonic() - started
        is_well(server)
        ends_of_views(client)
        figures(
            "requests",
            cases=counted,
            seconds=round(seconds, 1),
            longest_s=round(session.longest_s, 2),
            statuses=dict(sorted(session.statuses.items())),
        )
    assert counted >= 20 * cases


def test_generated_job_requests(server):
    _, url, _, _ = server
    statuses = Counter()

    def note(answer):
        statuses[answer.status_code] += 1

    with httpx.Client(base_url=url, timeout=30, event_hooks={"response": [note]}) as client:
        started = time.monotonic()
        counted = wish_fuzz(client, int(os.environ.get("SPHINX_FUZZ_WISHES", "60")))
        figures("jobs", cases=counted, seconds=round(time.monotonic() - started, 1), statuses=dict(statuses))
        ends_of_views(client)
        is_well(server)
    assert statuses[202] >= counted // 20, "some jobs were accepted"


def ends_of_views(client):
    """Checks that every accepted job ends, and its stream with it."""
    wait(lambda: sum(client.get("/v1/capacity").json()[name] for name in ("queued", "running")) == 0)
    for job in client.get("/v1/jobs?limit=100").json()["data"]:
        assert job["status"] in ("completed", "cancelled"), job
        assert not LEAKS.search(client.get(job["links"]["events"], timeout=10).text)


def completed_job(client, scene="demo"):
    """Returns the id of a completed job."""
    body = {"scene": scene, "path": "move-forward", "num_frames": 2, "size": "64x64"}
    response = client.post("/v1/jobs", json=body)
    if response.status_code == 429:
        return None
    assert response.status_code == 202, response.text
    assert "event: completed" in client.get(f"/v1/jobs/{response.json()['id']}/events", timeout=60).text
    return response.json()["id"]


def test_invalid_uploads_of_many_kinds(server):
    fuzz_uploads_of(server, "uploads")


def test_invalid_uploads_of_many_kinds_while_what_decodes_them_is_killed(server):
    with killing_decoders(server[0].pid) as killed:
        statuses = fuzz_uploads_of(server, "uploads under kills")
    assert len(killed) >= 10
    assert set(statuses) <= {201, 202, 400, 413, 415, 422, 503}
    assert statuses[201] > 0, "uploads whose process was killed are decoded again"


@contextlib.contextmanager
def killing_decoders(pid):
    """Kills processes that decode a server's uploads, at random moments; yields their list."""
    rng, over, killed = random.Random(0), threading.Event(), []

    def kill():
        while not over.wait(rng.uniform(0.0, 0.5)):
            # Most uploads are decoded within milliseconds: wait for the next one.
            while not over.is_set() and (hit := kill_decoder_of(pid, rng)) is None:
                pass
            if hit is not None:
                killed.append(hit)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def fuzz_uploads_of(server, name):
    """Sends invalid uploads of many kinds, and a valid one; returns the number of responses by status."""
    _, url, folder, _ = server
    statuses, longest = Counter(), [0.0]

    def note(answer):
        statuses[answer.status_code] += 1
        longest[0] = max(longest[0], time.monotonic() - answer.request.extensions["begun"])

    def begin(request):
        request.extensions["begun"] = time.monotonic()

    hooks = {"request": [begin], "response": [note]}
    with httpx.Client(base_url=url, timeout=30, event_hooks=hooks) as client:
        started = time.monotonic()
        counted = upload_fuzz(client, int(os.environ.get("SPHINX_FUZZ_UPLOADS", "40")))
        seconds, answers = time.monotonic() - started, Counter(statuses)
        figures(name, cases=counted, seconds=round(seconds, 1), longest_s=round(longest[0], 2), statuses=dict(answers))
        is_well(server)
        scene = accepted_scene(client)
        assert completed_job(client, scene) is not None, "valid photos are still accepted"
        kept = {row["id"] for row in pages(client, "/v1/scenes")} | {"demo"}
    assert len(list((folder / "scenes").iterdir())) == len(kept), "refused uploads leave no files"
    return answers


def accepted_scene(client):
    """Uploads valid photos, again if the server says so; returns the scene's id."""
    answer = client.post("/v1/scenes", files=parts())
    while answer.status_code == 503:
        time.sleep(float(answer.headers["Retry-After"]))
        answer = client.post("/v1/scenes", files=parts())
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def pages(client, address):
    """Returns the items of all pages of a list."""
    while address:
        page = client.get(address).json()
        yield from page["data"]
        address = page["next"]


def png_bomb(side):
    """Returns a small valid image file with this many pixels a side."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (side * (side // 8 + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def peak_mib(process):
    """Returns the peak memory of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024


def test_decompression_bombs_take_no_memory(server):
    process, url, _, _ = server
    before, bomb, zeros = peak_mib(process), png_bomb(24_000), b"\0" * (300 << 20)
    cameras = parts()[-1]
    archives = [
        zipped({"transforms.json": transforms().encode(), name: data})
        for name, data in (("0.png", zeros), ("0.png", bomb))
    ]
    archives.append(zipped({"a.zip": zipped({"b.zip": zipped({"0.png": zeros})})}))
    with httpx.Client(base_url=url, timeout=30) as client:
        for _ in range(3):
            answers = [
                client.post("/v1/scenes", files=[("images", ("0.png", bomb)), ("images", ("1.png", bomb)), cameras])
            ]
            kind = {"Content-Type": "application/zip"}
            answers += [client.post("/v1/scenes", content=archive, headers=kind) for archive in archives]
            for answer in answers:
                check_answer(answer)
                assert answer.status_code in (413, 422), answer.text
    figures("bombs", before_mib=before, peak_mib=peak_mib(process))
    assert peak_mib(process) < before + 100
    is_well(server)
