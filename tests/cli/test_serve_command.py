"""`sphinx-nvs serve`: flags become settings, errors are one sentence; the real command starts, serves and drains."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sphinx_nvs.cli import serve as command
from sphinx_nvs.cli.options.render_options import parse
from sphinx_nvs.cli.options.serve_options import server_folder
from sphinx_nvs.engine.store import JobStore
from sphinx_nvs.engine.types.jobs import JobState
from sphinx_nvs.errors import InputError
from sphinx_nvs.server.server_config import ServerConfig


@pytest.fixture
def sentence(run, tmp_path):
    """The error of a server that does not start."""

    def sentence(*words):
        outcome = run("serve", "--port", "0", "--folder", tmp_path / "server", *words)
        assert (outcome.code, outcome.out) == (2, ""), outcome
        assert outcome.err.count("\n") == 1
        return outcome.err.removeprefix("sphinx-nvs: ").rstrip("\n").replace(str(tmp_path), "TMP")

    return sentence


def test_workers_and_server_share_the_artifact_location(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = parse(["serve", "--artifacts", "here", "--calibrate"])
    setup = command.setup_from(options, tmp_path / "server")
    assert setup.artifacts == command.engine_config(options, tmp_path / "server").artifacts_place
    assert (setup.artifacts, setup.calibrate) == (str(tmp_path / "here"), True)


def test_defaults_without_flags():
    options = parse(["serve"])
    assert command.server_config(options) == ServerConfig(
        upload=command.UploadLimits(body_bytes=512_000_000),
        key=command.KeyLimits(rate_per_s=50.0, burst=200, stored_bytes=20_000_000_000),
    )
    engine = command.engine_config(options, server_folder(None))
    assert (engine.preset, engine.devices, engine.executor, engine.window) == ("embedded", 1, "pool", None)
    assert engine.limits.ttl_s == 86_400
    assert not engine.scheduler.packing
    assert (engine.database, engine.artifacts_place) == (None, str(server_folder(None) / "artifacts"))


def test_flags_become_settings(tmp_path):
    words = "--host ::1 --port 9 --keys required --rate 2.5 --views 3 --scenes 4 --storage-gb 0.5 --streams 6"
    words += " --upload-mb 7 --keep-scenes-h 2 --drain-s 0 --trusted-proxies 10.0.0.2 --hosts a.org"
    words += " --cors https://a.org https://b.org"
    words += " --no-demo --no-metrics"
    config = command.server_config(parse(["serve", *words.split()]))
    assert config == ServerConfig(
        host="::1",
        port=9,
        require_keys=True,
        key=command.KeyLimits(
            rate_per_s=2.5, burst=10, running_jobs=3, stored_scenes=4, stored_bytes=500_000_000, streams=6
        ),
        upload=command.UploadLimits(body_bytes=7_000_000),
        scene_ttl_s=7200.0,
        drain_s=0.0,
        trusted_proxies=("10.0.0.2",),
        hosts=("a.org",),
        cors_origins=("https://a.org", "https://b.org"),
        has_demo=False,
        metrics=False,
    )
    words = "--preset seva-mvsplat --devices 2 --queue 8 --frames 9 --keep-h 1 --steps 10 --window 12 --cache-gb 3"
    words += " --model a --vae b --clip c --mvsplat d --random-weights tiny --device cuda --dtype float16 --offload"
    words += " --database postgresql://me@there/rows --artifacts s3://bucket/folder --packing"
    engine = command.engine_config(parse(["serve", *words.split()]), tmp_path)
    assert (engine.preset, engine.devices, engine.window, engine.folder) == ("seva-mvsplat", 2, 12, tmp_path)
    assert (engine.scheduler.max_queue, engine.limits.max_views, engine.limits.ttl_s) == (8, 9, 3600.0)
    assert engine.scheduler.packing
    assert (engine.database, engine.artifacts_place) == ("postgresql://me@there/rows", "s3://bucket/folder")
    assert engine.options == {
        "num_steps": 10,
        "cache_gb": 3.0,
        "compile": False,
        "device": "cuda",
        "dtype": "float16",
        "offload": True,
        "random_weights": "tiny",
        "weights": {"unet": "a", "vae": "b", "clip": "c", "mvsplat": "d"},
    }


def test_settings_of_workers(tmp_path):
    setup = command.setup_from(parse(["serve", "--remember-mb", "80", "--calibrate"]), tmp_path)
    assert (setup.memory_mb, setup.calibrate, setup.artifacts) == (80.0, True, str(tmp_path / "artifacts"))
    assert command.setup_from(parse(["serve"]), tmp_path).memory_mb is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "65536"), "--port: it is 65536; give a number in 0..65535"),
        (("--drain-s", "-1"), "--drain-s: it is -1; give a number of seconds from 0"),
        (("--drain-s", "inf"), "--drain-s: it is inf; give a number of seconds from 0"),
        (("--rate", "0"), "--rate: it is 0; give a number above 0"),
        (("--storage-gb", "nan"), "--storage-gb: it is nan; give a number above 0"),
        (("--devices", "0"), "--devices: it is 0; give a number above 0"),
        (("--window", "1"), "--window: it is 1; give at least 2 views"),
        (("--remember-mb", "-1"), "--remember-mb: it is -1; give a number from 0"),
        (("--remember-mb", "nan"), "--remember-mb: it is nan; give a number from 0"),
    ],
)
def test_numbers_out_of_range(sentence, words, said):
    assert sentence(*words) == said


def test_an_address_in_use_is_reported_at_once(sentence):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        started = time.perf_counter()
        assert sentence("--port", port) == (
            f"--host, --port: 127.0.0.1 port {port} cannot be used (Address already in use); "
            "choose another port, or stop the program that uses it"
        )
        assert time.perf_counter() - started < 2


def test_an_address_of_another_machine(sentence):
    assert sentence("--host", "192.0.2.1", "--keys", "none").startswith(
        "--host, --port: 192.0.2.1 port 0 cannot be used"
    )


def test_other_machines_need_keys_or_an_explicit_option(sentence, tmp_path):
    assert sentence("--host", "0.0.0.0") == (
        "--host 0.0.0.0: other machines can reach it, and there is no API key; create one: sphinx-nvs keys "
        "create NAME --folder TMP/server; or allow requests without keys: --keys none"
    )
    folder = tmp_path / "server"
    store = JobStore.open(folder / "jobs.sqlite")
    key, _ = store.add_key("alice", now=1.0)

    def check(*words):
        options = parse(["serve", "--host", "0.0.0.0", *words])
        command.check_has_keys(options, command.server_config(options), folder)

    check()
    store.revoke_key(key.id, now=2.0)
    store.close()
    with pytest.raises(InputError, match="there is no API key"):
        check()
    check("--keys", "none")


def test_missing_packages(sentence, monkeypatch):
    monkeypatch.setattr(
        "sphinx_nvs.cli.serve_requirements.find_spec", lambda name: None if name == "uvicorn" else object()
    )
    assert sentence() == (
        'serve: the package uvicorn is not installed; install the server\'s packages: pip install "sphinx-nvs[serve]"'
    )


def test_location_of_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SPHINX_NVS_HOME", str(tmp_path / "home"))
    assert server_folder(None) == tmp_path / "home" / "server"
    monkeypatch.delenv("SPHINX_NVS_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert server_folder(None) == tmp_path / "data" / "sphinx-nvs" / "server"
    assert server_folder(tmp_path) == tmp_path


# The real command --------------------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path):
    """Starts servers; kills one that a test leaves running."""
    started = []

    def begin(*words):
        words = ("serve", "--port", "0", "--folder", str(tmp_path / "server"), *words)
        process = subprocess.Popen(
            [sys.executable, "-m", "sphinx_nvs.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_it_starts_serves_the_printed_request_and_drains(start, tmp_path):
    process = start("--steps", "4", "--log-format", "json")
    lines = [process.stdout.readline() for _ in range(7)]
    url = re.search(r"embedded at (http://127\.0\.0\.1:\d+) \(ready in [\d.]+ s\)", lines[0])[1]
    assert lines[1].endswith(f" {url}/\n")
    assert f"{url}/docs" in lines[2]
    assert str(tmp_path / "server") in lines[5]
    body = json.loads(re.search(r"-d '(\{.*\})'", lines[3])[1])
    with httpx.Client(base_url=url, timeout=30) as client:
        assert client.get("/docs").status_code == 200
        assert client.get("/readyz").json() == {"status": "ready", "detail": ""}
        files = [tmp_path / "server", *(tmp_path / "server").rglob("*")]
        assert [path for path in files if path.stat().st_mode & 0o077] == [], "other users may read these"
        assert len(files) > 5
        view = client.post("/v1/jobs", json={**body, "num_frames": 2, "size": "64x64"}).json()
        process.send_signal(signal.SIGTERM)
        with client.stream("GET", f"/v1/jobs/{view['id']}/events") as stream:
            kinds = [line.removeprefix("event: ") for line in stream.iter_lines() if line.startswith("event: ")]
    assert kinds[0] == "queued"
    assert kinds[-1] == "completed", "what was taken on is done before the server ends"
    said, logged = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    logs = [json.loads(line) for line in logged.splitlines()]
    assert "draining" in [log["event"] for log in logs]
    assert all(log["logger"].startswith("sphinx_nvs") for log in logs), "no chatter of libraries"
    store = JobStore.open(tmp_path / "server" / "jobs.sqlite")
    assert store.job(view["id"]).state is JobState.COMPLETED
    store.close()


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="background jobs hear no Ctrl-C")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="child processes are listed by Linux only")
def test_ctrl_c_while_it_loads(start):
    process = start()
    # Its workers begin to load before it imports what a server needs.
    while not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, logged = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")
    assert logged == "sphinx-nvs: interrupted; unfinished views continue when the same folder is served again\n"
