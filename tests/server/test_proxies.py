"""The proxies' configurations in `deploy/`, run by the real programs in front of a real server.

Other than in the files are only the ports, the certificate, and the timeouts, which are a tenth.
"""

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sphinx_nvs.load_testing.server_process import free_port

HERE, DEPLOY = Path(__file__).parent, Path(__file__).parents[2] / "deploy"
NAME = "nvs.example.org"
JOB = {"scene": "demo", "path": "move-forward", "num_frames": 2, "size": "64x64"}

SERVER = """
import os, sys
from pathlib import Path
from server_fakes import open_engine
from sphinx_nvs.server.server_config import KeyLimits, ServerConfig
from sphinx_nvs.server.uvicorn_runner import serve

async def opened():
    return open_engine(Path(sys.argv[1]))

limits = KeyLimits(rate_per_s=0.001, burst=12)
config = ServerConfig(port=0, drain_s=0.1, has_demo=False, hosts=("nvs.example.org",), trusted_proxies=("127.0.0.1",),
                      key=limits)

def announce(url):
    print(url, flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

serve(opened, config, announce)
"""


def tenth(text, names):
    """The configuration with these timeouts ten times shorter, which must be in it."""
    for name in names:
        text, count = re.subn(rf"({name} )(\d+)s", lambda found: f"{found[1]}{int(found[2]) * 100}ms", text)
        assert count == 1, f"there is no {name}"
    return text


def nginx(folder, port, upstream):
    """Command line of nginx."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-nodes", "-days", "1", "-subj", f"/CN={NAME}"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", certificate, *subject]
    subprocess.run(made, check=True, capture_output=True)
    text = tenth((DEPLOY / "nginx.conf").read_text(), ["client_header_timeout", "client_body_timeout"])
    for old, new in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        f"/etc/ssl/certs/{NAME}.pem": str(certificate),
        f"/etc/ssl/private/{NAME}.key": str(key),
        "127.0.0.1:8000": upstream,
        # Where a user who is not root may write.
        "http {": "http { access_log off; "
        + " ".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    options = f"daemon off; pid {folder}/pid; error_log {folder}/log;"
    return ["nginx", "-e", str(folder / "log"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", options]


def caddy(folder, port, upstream):
    """Command line of Caddy; without TLS, which needs a public name."""
    text = (DEPLOY / "Caddyfile").read_text().replace("read_body 5m", "read_body 15s")
    text = tenth(text, ["read_header", "read_body"])
    for old, new in {
        f"\n{NAME} {{": f"\nhttp://{NAME}:{port} {{\n\tbind 127.0.0.1\n",
        "127.0.0.1:8000": upstream,
        "\n{\n": "\n{\n\tadmin off\n",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "Caddyfile").write_text(text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


class Proxy:
    """A proxy that runs, and how to reach it."""

    def __init__(self, name, port):
        self.name, self.port = name, port
        self.scheme = "https" if name == "nginx" else "http"

    def client(self, source="127.0.0.1"):
        """A client of the proxy at one of this machine's addresses."""
        transport = httpx.HTTPTransport(verify=False, local_address=source)
        url = f"{self.scheme}://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, headers={"Host": NAME}, transport=transport, timeout=10)

    @contextlib.contextmanager
    def socket(self):
        """A bare connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as bare:
            if self.scheme == "http":
                yield bare
                return
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(bare, server_hostname=NAME) as wrapped:
                yield wrapped


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """A real server with a fake engine; its address."""
    command = [sys.executable, "-c", SERVER, str(tmp_path_factory.mktemp("server"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=HERE)
    yield process.stdout.readline().strip().removeprefix("http://")
    process.kill()
    process.communicate()


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def proxy(request, tmp_path_factory, upstream):
    """A proxy in front of the server."""
    name = request.param.__name__
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here")
    folder, port = tmp_path_factory.mktemp(name), free_port()
    home = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(request.param(folder, port, upstream), stdout=out, stderr=out, env=home)
    try:
        made = Proxy(name, port)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, (folder / "out").read_text()
            time.sleep(0.05)
        yield made
    finally:
        process.terminate()
        process.wait(10)


def test_requests_pass_and_names_that_are_not_the_servers_do_not(proxy):
    with proxy.client("127.0.1.1") as client:
        assert client.get("/readyz").json()["status"] == "ready"
        assert client.get("/v1/scenes/demo").status_code == 200


def test_events_arrive_one_by_one(proxy):
    with proxy.client("127.0.1.2") as client:
        job = client.post("/v1/jobs", json=JOB).json()
        with client.stream("GET", job["links"]["events"]) as stream:
            lines = stream.iter_lines()
            # The job goes on: a proxy that buffers would send nothing before its end.
            assert [next(lines).partition(":")[0] for _ in range(3)] == ["id", "event", "data"]
            assert client.get(job["links"]["self"]).json()["status"] == "queued"
            client.delete(job["links"]["self"])
            assert "event: cancelled" in list(lines)


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(proxy):
    head = (
        f"POST /v1/scenes HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/zip\r\nContent-Length: {600 << 20}\r\n"
    )
    with proxy.socket() as bare:
        bare.sendall(f"{head}\r\n".encode() + bytes(1000))
        assert b" 413 " in bare.recv(1000).split(b"\r\n")[0]


@pytest.mark.parametrize("sent", [b"GET /v1/scenes HTTP/1.1\r\nHost: nvs", b"whole"], ids=["headers", "body"])
def test_slow_clients_lose_their_connection(proxy, sent):
    """Headers after a second, bodies after one and a half; ten times that as configured."""
    if sent == b"whole":
        kind = "Content-Type: application/json\r\nContent-Length: 1000"
        sent = f"POST /v1/jobs HTTP/1.1\r\nHost: {NAME}\r\n{kind}\r\n\r\n{{".encode()
    began = time.monotonic()
    with proxy.socket() as bare:
        bare.sendall(sent)
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while data := bare.recv(1000):
                assert not re.match(rb"HTTP/1.1 2", data)
    assert 0.5 < time.monotonic() - began < 6.0


def test_the_server_sees_the_clients_address_and_none_that_a_client_claims(proxy):
    """Each address has twelve requests."""

    def answers(source):
        with proxy.client(source) as client:
            claimed = ({"X-Forwarded-For": f"8.8.8.{i}", "Forwarded": f"for=8.8.8.{i}"} for i in range(14))
            return [client.get("/v1/scenes/demo", headers=headers).status_code for headers in claimed]

    for source in {"nginx": ("127.0.2.1", "127.0.2.2"), "caddy": ("127.0.2.3", "127.0.2.4")}[proxy.name]:
        assert answers(source) == [200] * 12 + [429] * 2


@pytest.mark.parametrize("path", ["/metrics", "/v1/metrics"])
def test_metrics_are_not_for_strangers(proxy, path):
    with proxy.client("127.0.3.1") as client:
        answer = client.get(path)
    assert answer.status_code in (403, 404)
    assert "python_info" not in answer.text
    assert "sphinx" not in answer.text
