"""One engine writes: the token of the store, compact rows, private and steady pieces around it."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_fakes import INTRINSICS, POSE, add_job, open_world, scene_of, spec_of

from sphinx_nvs.engine import steady_clock as steady
from sphinx_nvs.engine.artifacts import ArtifactStore, DamagedError
from sphinx_nvs.engine.executor.socket_folder import new_socket_folder, remove_abandoned
from sphinx_nvs.engine.store import JobStore
from sphinx_nvs.engine.store.camera_codec import pack_cameras, unpack_cameras
from sphinx_nvs.engine.types.engine_errors import FencedError, StoreUnavailableError
from sphinx_nvs.engine.types.transitions import JobEvent
from sphinx_nvs.errors import InputError


def test_an_engine_that_was_taken_over_writes_nothing_any_more(tmp_path):
    first = JobStore.open(tmp_path / "jobs.sqlite", exclusive=True)
    add_job(first, key="before")
    with pytest.raises(InputError, match="another engine uses it"):
        JobStore.open(tmp_path / "jobs.sqlite", exclusive=True)
    (tmp_path / "jobs.sqlite.lock").unlink()
    second = JobStore.open(tmp_path / "jobs.sqlite", exclusive=True)
    try:
        with pytest.raises(FencedError, match="taken over by another engine"):
            add_job(first, key="after")
        with pytest.raises(FencedError):
            first.check()
        second.check()
        add_job(second, key="of the second")
        assert [job.idempotency_key for job in second.list_jobs()] == ["of the second", "before"]
    finally:
        first.close()
        second.close()


def test_a_store_beside_the_engine_writes_keys(tmp_path):
    engine = JobStore.open(tmp_path / "jobs.sqlite", exclusive=True)
    beside = JobStore.open(tmp_path / "jobs.sqlite")
    beside.add_key("alice", now=1.0)
    assert [key.name for key in engine.list_keys()] == ["alice"]
    beside.close()
    engine.close()


def test_a_database_that_refuses_is_not_a_full_disk(tmp_path, monkeypatch):
    store = JobStore.open(tmp_path / "jobs.sqlite")
    monkeypatch.setattr("sphinx_nvs.engine.store.database.check_owner", lambda conn, token: broken(conn))
    store._database._token = "token"
    with pytest.raises(StoreUnavailableError, match="no such table: nowhere") as raised:
        store.check()
    assert raised.value.http_status == 503
    store.close()


def broken(conn):
    conn.exec_driver_sql("SELECT * FROM nowhere")


# Rows -----------------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
POSES = st.lists(NUMBERS, min_size=12, max_size=12).map(
    lambda n: (tuple(n[:4]), tuple(n[4:8]), tuple(n[8:]), (0.0, 0.0, 0.0, 1.0))
)
KS = st.lists(NUMBERS, min_size=9, max_size=9).map(lambda n: (tuple(n[:3]), tuple(n[3:6]), tuple(n[6:])))


@given(st.lists(st.tuples(POSES, KS), max_size=5))
def test_cameras_come_back_bit_for_bit(cameras):
    c2w, K = tuple(each[0] for each in cameras), tuple(each[1] for each in cameras)
    back = unpack_cameras(pack_cameras(c2w, K), len(cameras))
    assert repr(back) == repr((c2w, K))


def test_cameras_of_another_version_are_refused():
    with pytest.raises(ValueError, match="version"):
        unpack_cameras(b"\x02" + pack_cameras((POSE,), (INTRINSICS,))[1:], 1)


def test_a_long_path_takes_little_room_and_counts(tmp_path):
    store, _ = open_world(tmp_path)
    moved = tuple((*((*row[:3], row[3] + 0.001 * index) for row in POSE[:3]), POSE[3]) for index in range(1000))
    spec = spec_of(views=1000)

    job = add_job(store, spec=replace(spec, c2w=moved))
    assert store.job(job.id).spec == job.spec
    assert 4096 < store.usage("k").stored_bytes < 40_000
    (listed,) = store.list_jobs()
    assert (listed.spec.c2w, listed.spec.K, listed.spec.num_views) == ((), (), 1000)
    assert replace(listed.spec, c2w=moved, K=spec.K, num_omitted=0) == job.spec
    store.close()


def test_a_cancelled_job_goes_soon(tmp_path):
    store, _ = open_world(tmp_path)
    jobs = [add_job(store, expires_s=100_000.0, now=1000.0), add_job(store, expires_s=1500.0, now=1000.0)]
    ended = [store.record(job.id, JobEvent.CANCELLED, now=1100.0) for job in jobs]
    assert [job.expires_s for job in ended] == [2000.0, 1500.0]
    store.sweep(2001.0)
    assert store.list_jobs() == []
    store.close()


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_found_when_it_is_read_and_can_be_put_again(tmp_path):
    artifacts = ArtifactStore(tmp_path)
    digest = artifacts.put(b"frame", suffix=".png")
    assert artifacts.checked_path(digest).read_bytes() == b"frame"
    artifacts.path(digest).write_bytes(b"frane")
    with pytest.raises(DamagedError, match="it was removed"):
        artifacts.checked_path(digest)
    assert not artifacts.has(digest)
    assert artifacts.put(b"frame", suffix=".png") == digest
    assert artifacts.checked_path(digest).read_bytes() == b"frame"


def test_files_are_swept_by_the_clock_that_dates_them(tmp_path):
    store, _ = open_world(tmp_path, grace_s=100.0)
    digest = store._artifacts.put(b"new")
    now = time.time()
    # The engine's clock is an hour ahead of the system's, which was set back.
    assert store.sweep(now + 3600.0, file_lag_s=-3600.0).files == ()
    assert store._artifacts.has(digest)
    store.close()


def test_folders_of_sockets_go_with_their_pool(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    abandoned, foreign = tmp_path / f"sphinx-{ended.pid}-abc", tmp_path / "sphinx-notes"
    abandoned.mkdir()
    foreign.mkdir()
    (tmp_path / f"sphinx-{ended.pid}-link").symlink_to(foreign)
    own = new_socket_folder()
    assert {path.name for path in tmp_path.iterdir()} == {"sphinx-notes", own.name, f"sphinx-{ended.pid}-link"}
    assert own.stat().st_mode & 0o777 == 0o700
    assert own.name.startswith(f"sphinx-{os.getpid()}-")
    remove_abandoned(tmp_path)
    assert own.is_dir()


# Time -----------------------------------------------------------------------------------------------------------------


def test_the_clock_does_not_follow_steps_of_the_systems(monkeypatch):
    system, run = [1_000_000.0], [50.0]
    monkeypatch.setattr(steady.time, "time", lambda: system[0])
    monkeypatch.setattr(steady.time, "monotonic", lambda: run[0])
    clock = steady.steady_clock()
    assert clock() == 1_000_000.0
    system[0] -= 3600.0
    run[0] += 1.5
    assert clock() == 1_000_001.5
    assert steady.lag_of(clock) == -3601.5


def test_scenes_with_rows_still_stay(tmp_path):
    store, _ = open_world(tmp_path)
    store.add_scene(scene_of(path=str(tmp_path / "scenes" / "scene")))
    (tmp_path / "scenes" / "scene").mkdir(parents=True)
    store.sweep(time.time() + 1e6, file_lag_s=0.0)
    assert (tmp_path / "scenes" / "scene").is_dir()
    store.close()
