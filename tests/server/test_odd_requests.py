"""Odd requests over real sockets: each is answered at once with 4xx, or ends; none breaks the server."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from server_fakes import png

HERE = Path(__file__).parent

SERVER = """
import os, sys
from pathlib import Path
from server_fakes import open_engine
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig
from sphinx_nvs.server.uvicorn_runner import serve

async def opened():
    return open_engine(Path(sys.argv[1]))

config = ServerConfig(port=0, drain_s=0.1, has_demo=False, wait_s=2.0, key=KeyLimits(rate_per_s=1e6, burst=10**6))

def announce(url):
    print(url, flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

serve(opened, config, announce)
"""

LINE = b"HTTP/1.1\r\nHost: localhost\r\n"
JOB = json.dumps({"scene": "demo", "num_frames": 2, "size": "64x64"}).encode()
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real server with a fake engine: its port, and its log."""
    folder = tmp_path_factory.mktemp("server")
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-c", SERVER, str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=HERE)
    yield int(process.stdout.readline().rsplit(":", 1)[1]), folder / "log"
    process.kill()
    process.communicate()
    assert "Traceback" not in (folder / "log").read_text()


def answer(server, data):
    """The status of the first response to these bytes; 0 if the connection ends without one."""
    received = b""
    with socket.create_connection(("127.0.0.1", server[0]), timeout=8) as bare:
        bare.sendall(data)
        while b"\r\n" not in received:
            try:
                more = bare.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                return 0
            received += more
    return int(received.split()[1])


def post(path, *headers, body=b""):
    """The bytes of a request."""
    return b"POST " + path + b" " + LINE + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


def job(*headers, body=JOB):
    """A request for a job that is accepted if `headers` are."""
    return post(b"/v1/jobs", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers, body=body)


ODD = {
    "length and chunks at once": (post(b"/v1/jobs", b"Content-Type: application/json", b"Content-Length: 5",
                                       b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    "a negative length": (post(b"/v1/jobs", b"Content-Length: -5"), 400),
    "a length of 23 digits": (post(b"/v1/jobs", b"Content-Length: " + b"9" * 23), 400),
    "a chunk of no size": (post(b"/v1/jobs", b"Content-Type: application/json", b"Transfer-Encoding: chunked",
                                body=b"zz\r\n"), 400),
    "chunks without an end": (post(b"/v1/jobs", b"Content-Type: application/json", b"Transfer-Encoding: chunked",
                                   body=b"5\r\nabcde\r\n" * 9), 0),
    "a chunk larger than memory": (post(b"/v1/jobs", b"Content-Type: application/json", b"Transfer-Encoding: chunked",
                                        body=b"ffffffffffffffff\r\n"), 0),
    "a NUL in a header": (job(b"Idempotency-Key: a\0b"), 400),
    "Latin letters in a key": (job(b"Idempotency-Key: \xe9\xff"), 422),
    "a key of 10,000 letters": (job(b"Idempotency-Key: " + b"a" * 10_000), 422),
    "20,000 headers": (b"GET /v1/jobs " + LINE + b"".join(b"X-%d: y\r\n" % i for i in range(20_000)) + b"\r\n", 400),
    "a header of 1 MiB": (b"GET /v1/jobs " + LINE + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n", 400),
    "an address of 1 MiB": (b"GET /v1/jobs?" + b"y" * (1 << 20) + b" " + LINE + b"\r\n", 400),
    "bytes in the address": (b"GET /v1/jobs/\xff\xfe " + LINE + b"\r\n", 400),
    "escaped bytes in the address": (b"GET /v1/jobs/%ff%fe " + LINE + b"\r\n", 422),
    "a NUL in the address": (b"GET /v1/jobs/%00 " + LINE + b"\r\n", 422),
    "a way out of the folder": (b"GET /v1/scenes/..%2f..%2fetc/photos/0 " + LINE + b"\r\n", 404),
    "no host": (b"GET /v1/scenes HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /v1/scenes " + LINE + b"Host: evil.example\r\n\r\n", 400),
    "another host": (b"GET /v1/scenes HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    "a tunnel": (b"CONNECT evil.example:1 " + LINE + b"\r\n", 404),
    "a method of no protocol": (b"G\xc3\xa9T /v1/jobs " + LINE + b"\r\n", 400),
    "a websocket where there is none": (b"GET /v1/jobs/none/events " + LINE + b"Upgrade: websocket\r\n"
                    b"Connection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 403),
    "a stream from before the beginning": (b"GET /v1/jobs/none/events " + LINE + b"Last-Event-ID: -1\r\n\r\n", 422),
    "a key that is no text": (b"GET /v1/jobs " + LINE + b"Authorization: Bearer snvs_\xff\xfe\r\n\r\n", 401),
    "not a number": (job(body=b'{"scene": "demo", "fps": NaN}'), 422),
    "a number without end": (job(body=b'{"scene": "demo", "fps": 1e999}'), 422),
    "5,000 digits": (job(body=b'{"scene": "demo", "num_frames": ' + b"9" * 5000 + b"}"), 400),
    "200,000 brackets": (job(body=b"[" * 100_000 + b"]" * 100_000), 400),
    "half of a letter": (job(body=b'{"scene": "\\ud800"}'), 422),
    "no UTF-8": (job(body=b'{"scene": "\xff\xfe"}'), 400),
}  # fmt: skip


@pytest.mark.parametrize(("data", "status"), ODD.values(), ids=ODD)
def test_an_odd_request_is_refused_and_the_next_is_served(server, data, status):
    assert answer(server, data) == status
    assert answer(server, b"GET /healthz " + LINE + b"\r\n") == 200


def test_ranges_are_those_of_the_file(server):
    """Ranges that overlap are sent as one, and none is sent that is not in the file."""
    with httpx.Client(base_url=f"http://127.0.0.1:{server[0]}") as client:
        path = "/v1/scenes/demo/photos/0"
        whole = client.get(path).content
        for given, status in {
            "bytes=5-": 206,
            "bytes=-5": 206,
            "bytes=0-0,1-1": 206,
            "bytes=" + ",".join(f"{i}-" for i in range(3000)): 200,
            "bytes=5-1": 400,
            "bytes=--5": 416,
            f"bytes={'9' * 20}-": 416,
            "lines=1": 400,
        }.items():
            found = client.get(path, headers={"Range": given})
            assert found.status_code == status, given[:40]
            assert len(found.content) <= max(len(whole), 400)
            if status == 206 and "multipart" not in found.headers["content-type"]:
                first, last = map(int, re.match(r"bytes (\d+)-(\d+)/", found.headers["content-range"]).groups())
                assert found.content == whole[first : last + 1]


@pytest.mark.parametrize(
    "body",
    [
        b"--x\r\nContent-Disposition: form-data; name=images; filename=1.png\r\n\r\nhalf of a ph",
        b"--x\r\nContent-Disposition: form-data; name=images; filename=1.png\r\n\r\nwhole\r\n--x",
        b"--x\r\nContent-Disp",
        b"",
    ],
)
def test_a_form_that_breaks_off_is_no_form(server, body):
    """Its last photo would be missing, and the scene would be made of the others."""
    part = b"--x\r\nContent-Disposition: form-data; name=images; filename=%d.png\r\n\r\n%s\r\n"
    whole = b"".join(part % (index, png()) for index in (5, 6))
    with httpx.Client(base_url=f"http://127.0.0.1:{server[0]}") as client:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        found = client.post("/v1/scenes", content=whole + body, headers=kind)
        assert (found.status_code, "last boundary" in found.text) == (400, True)
        assert client.get("/v1/scenes").json()["data"] == []
