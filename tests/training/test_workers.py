import os
import sys
import time

import pytest

from sphinx_nvs.training import workers
from sphinx_nvs.training.packets import load_packet

WORKER = """
import sys, time
sys.stdout.write(" ".join(sys.argv[1:]))
sys.stdout.flush()
time.sleep(60)
"""


def test_workers_run_while_they_are_wanted_and_say_what_they_have_to_say(tmp_path):
    program, folder = tmp_path / "worker.py", tmp_path / "feed"
    program.write_text(WORKER)
    folder.mkdir()
    (folder / "worlds-0000000.safetensors").write_bytes(b"stale")
    with workers.feeding(program, folder, [["--kind", "worlds"], ["--kind", "real"]]):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not all(log.stat().st_size for log in folder.glob("*.log")):
            time.sleep(0.05)
        ended = time.monotonic()
    assert time.monotonic() - ended < 10
    words = [(folder / f"feed-{index}.log").read_text() for index in range(2)]
    assert words == [f"feed --folder {folder} --kind {kind}" for kind in ("worlds", "real")]
    assert not list(folder.glob("*.safetensors"))


def test_a_worker_stops_when_it_is_ahead_and_ends_with_its_parent(tmp_path, monkeypatch):
    monkeypatch.setenv("SPHINX_FEED_PARENT", str(os.getppid()))
    waits = []

    def nap(seconds):
        waits.append(seconds)
        monkeypatch.setenv("SPHINX_FEED_PARENT", "1")
        monkeypatch.setattr(os, "getppid", lambda: -1)

    monkeypatch.setattr(workers.time, "sleep", nap)
    monkeypatch.setattr(workers, "AHEAD", 1)
    workers.feed_worlds(tmp_path, 2, 1, first=5, worlds=1, views=3)
    (path,) = tmp_path.glob("*.safetensors")
    assert (path.name, load_packet(path).seed, waits) == ("worlds-0000007.safetensors", 7, [0.1])


@pytest.mark.skipif(sys.platform == "win32", reason="processes have no parent id to watch")
def test_real_samples_have_seeds_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SPHINX_FEED_PARENT", str(os.getppid()))
    seeds = []

    def made(seed, **options):
        seeds.append((seed, options["real_share"]))
        if len(seeds) == workers.REAL_AT_ONCE:
            monkeypatch.setattr(os, "getppid", lambda: -1)

    monkeypatch.setattr(workers, "make_sample", made)
    workers.feed_real(tmp_path, 1, 2, first=0, size=32, views=4)
    assert len(set(seeds)) == workers.REAL_AT_ONCE
    assert all(seed > 10**7 and share == 1.0 for seed, share in seeds)
    assert not list(tmp_path.glob("*.safetensors"))
