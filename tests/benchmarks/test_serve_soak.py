"""The soak test can fail: what is left behind and what the server got wrong end up in its figures and exit code."""

import importlib.util
import json
import random
import sys
import time
from pathlib import Path

import pytest

from sphinx_nvs.load_testing.job_watcher import Sample, Watcher
from sphinx_nvs.load_testing.server_process import ServerProcess
from sphinx_nvs.server.scenes.ingest import SceneRequest, make_scene
from sphinx_nvs.server.server_config import UploadLimits

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def soak(monkeypatch):
    """The script."""
    spec = importlib.util.spec_from_file_location("serve_soak_benchmark", SCRIPTS / "serve_soak.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def figures(soak, tmp_path, last, problems=(), stuck=0):
    usual = {
        "server_mb": 400.0,
        "worker_mb": 600.0,
        "fds": 20,
        "sockets": 0,
        "threads": 9,
        "streams": 0,
        "unfinished": 0,
    }
    server = ServerProcess(tmp_path)
    server.lives = 1
    watcher = Watcher(server)
    watcher.samples = [Sample(at_s=2.0 * i, **usual) for i in range(10)]
    watcher.samples.append(Sample(at_s=20.0, **{**usual, **last}))
    run = soak.Run(until=time.monotonic())
    run.problems.update(problems)
    return soak.figures_of(watcher, run, stuck, server)


@pytest.mark.parametrize(
    ("last", "problems", "stuck", "code"),
    [
        ({}, [], 0, 0),
        ({}, ["429"], 0, 0),
        ({"unfinished": 1}, [], 0, 1),
        ({"streams": 2}, [], 0, 1),
        ({"sockets": 1}, [], 0, 1),
        ({}, [], 1, 1),
        ({}, ["500", "503"], 0, 1),
    ],
)
def test_leaks_and_failures_are_reported(soak, tmp_path, monkeypatch, capsys, last, problems, stuck, code):
    found = figures(soak, tmp_path, last, problems, stuck)
    assert found["http_5xx"] == sum(status.startswith("5") for status in problems)

    async def soaked(folder, seconds, clients, seed):
        assert (seconds, clients) == (30.0, 8)
        return found

    monkeypatch.setattr(soak, "soak", soaked)
    out = tmp_path / "out.json"
    assert soak.main(["--minutes", "0.5", "--out", str(out)]) == code
    printed = json.loads(capsys.readouterr().out)
    assert "samples" not in printed
    assert len(json.loads(out.read_text())["samples"]) == 11


def test_growth_is_reported(soak, tmp_path):
    found = figures(soak, tmp_path, {"server_mb": 460.0})
    assert found["growth_per_h"]["server_mb"] > 1000
    assert found["growth_per_h"]["worker_mb"] == pytest.approx(0.0, abs=1e-6)
    assert found["server_mb"] == [400.0, 400.0, 460.0]
    assert found["died"] == 1


def test_the_scenes_that_are_uploaded_can_be_used(soak, tmp_path):
    photos, cameras = soak.made_scene(random.Random(0))
    sent = tmp_path / "sent"
    sent.mkdir()
    for frame, photo in zip(cameras["frames"], photos, strict=True):
        (sent / frame["file_path"]).write_bytes(photo)
    (sent / "transforms.json").write_text(json.dumps(cameras))
    made = make_scene(sent, tmp_path / "scene", SceneRequest(), UploadLimits())
    assert (made.num_views, made.width, made.height) == (2, 96, 64)


@pytest.mark.slow
def test_a_real_server_frees_everything_of_disconnected_clients(soak, tmp_path, capsys):
    assert soak.main(["--minutes", "0.5", "--clients", "4", "--folder", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["died"] == 0
    assert sum(found["done"].values()) > 5
