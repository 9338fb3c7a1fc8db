"""Expiry: rows and files go together, and nothing goes that something else needs or may be about to."""

import os

import pytest
from store_fakes import add_job, finish, open_world, scene_of, spec_of

from sphinx_nvs.engine.store import JobStore, Swept
from sphinx_nvs.engine.store.references import TIME_IS_OVER
from sphinx_nvs.engine.types.jobs import EventKind, JobState, UnitState
from sphinx_nvs.engine.types.transitions import JobEvent

GRACE_S = 1000.0


@pytest.fixture
def world(tmp_path):
    opened, artifacts = open_world(tmp_path, grace_s=GRACE_S)
    yield opened, artifacts
    opened.close()


def put(artifacts, data, at_s):
    """A file that was put then."""
    digest = artifacts.put(data, suffix=".png")
    os.utime(artifacts.path(digest), (at_s, at_s))
    return digest


def done_job(store, digests, *, now=1000.0, **fields):
    """A completed job that refers to these files."""
    job = add_job(store, now=now, **{"expires_s": 2000.0, **fields})
    finish(store, job.id, now=now, frames={str(i): digest for i, digest in enumerate(digests)})
    return store.record(job.id, JobEvent.REFINED, now=now + 10)


def scene_folder(folder, name, at_s):
    """A folder among the scenes."""
    place = folder / "scenes" / name
    place.mkdir(parents=True)
    (place / "0.png").write_bytes(b"photo")
    os.utime(place, (at_s, at_s))
    return place


def test_rows_and_files_of_a_job_go_in_the_same_sweep(world):
    store, artifacts = world
    frames = [put(artifacts, bytes([i]), 1005) for i in range(3)]
    job = done_job(store, frames[:2])
    assert store.sweep(1999) == Swept()
    assert all(map(artifacts.has, frames[:2]))
    swept = store.sweep(2000)
    assert swept == Swept(jobs=(job.id,), files=tuple(sorted(f"{frame}.png" for frame in frames[:2])))
    assert store.job(job.id) is None
    assert (store.units(job.id), store.events(job.id)) == ([], [])
    assert store.usage("k").stored_bytes == 0


def test_files_that_another_job_refers_to_stay_until_it_goes(world):
    store, artifacts = world
    shared, own = put(artifacts, b"shared", 1005), put(artifacts, b"own", 1005)
    first = done_job(store, [shared, own])
    second = done_job(store, [shared], expires_s=3000.0)
    assert store.sweep(2500).files == (f"{own}.png",)
    assert store.job(first.id) is None
    assert artifacts.has(shared)
    assert store.sweep(3000) == Swept(jobs=(second.id,), files=(f"{shared}.png",))


def test_jobs_that_go_together_take_what_they_share_along(world):
    store, artifacts = world
    shared = put(artifacts, b"shared", 1005)
    jobs = [done_job(store, [shared]) for _ in range(2)]
    assert store.sweep(2000) == Swept(jobs=tuple(sorted(job.id for job in jobs)), files=(f"{shared}.png",))


def test_a_video_and_a_scenes_artifact_are_referred_to_as_frames_are(world):
    store, artifacts = world
    video, scene = put(artifacts, b"video", 1005), put(artifacts, b"scene", 1005)
    job = add_job(store, expires_s=2000.0)
    store.set_video(job.id, video)
    assert store.job(job.id).video is None, "its frames may get better"
    store.record(job.id, JobEvent.REFINED, now=1010)
    store.set_video(job.id, video)
    assert store.job(job.id).video == video
    store.add_scene(scene_of("s1", digest=scene))
    assert store.sweep(1990).files == ()
    assert store.sweep(2000).files == (f"{video}.png",)
    assert artifacts.has(scene)


def test_a_file_that_a_unit_may_just_have_put_again_stays(world):
    store, artifacts = world
    again, before = put(artifacts, b"again", 1500), put(artifacts, b"before", 1005)
    done_job(store, [again, before])
    assert store.sweep(2000).files == (f"{before}.png",)
    assert artifacts.has(again), "it was put after the job's end: another row may follow"
    assert store.sweep(2000 + GRACE_S).files == (f"{again}.png",), "no row followed"


def test_a_file_as_young_as_an_unfinished_job_stays(world):
    store, artifacts = world
    young, old = put(artifacts, b"young", 1005), put(artifacts, b"old", 900)
    done_job(store, [young, old], now=1004.0)
    waiting = add_job(store, now=1003.0, expires_s=9000.0)
    assert store.sweep(2000).files == (f"{old}.png",)
    finish(store, waiting.id, now=2001.0, frames={"0": young})
    assert store.sweep(2000 + 5 * GRACE_S).files == ()
    assert artifacts.has(young), "the unit's row refers to it now"


def test_a_finished_job_can_be_deleted_with_its_files(world):
    store, artifacts = world
    shared, own = put(artifacts, b"shared", 1005), put(artifacts, b"own", 1005)
    job, other = done_job(store, [shared, own]), done_job(store, [shared])
    assert store.delete_job(job.id, now=2000) == job
    assert (store.job(job.id), store.units(job.id), store.events(job.id)) == (None, [], [])
    assert (artifacts.has(own), artifacts.has(shared)) == (False, True)
    assert store.delete_job(job.id, now=2000) is None
    assert store.delete_job(other.id, now=2000) == other
    assert not artifacts.has(shared)


def test_a_video_made_after_its_jobs_end_is_deleted_with_it(world):
    store, artifacts = world
    add_job(store, now=900.0, expires_s=9000.0)
    old, young = put(artifacts, b"old", 1939), put(artifacts, b"young", 1941)
    for video in (old, young):
        job = done_job(store, [])
        store.set_video(job.id, video)
        store.delete_job(job.id, now=2000)
    assert not artifacts.has(old)
    assert artifacts.has(young), "another job's row may be about to refer to it"
    store.set_video("job_x", young)
    assert store.sweep(2000 + GRACE_S).files == (f"{young}.png",)


def test_an_unfinished_job_cannot_be_deleted(world):
    store, _ = world
    job = add_job(store)
    assert store.delete_job(job.id, now=2000) is None
    assert store.job(job.id) == job


def test_a_request_whose_job_was_deleted_is_a_new_one(world):
    store, _ = world
    job = done_job(store, [], key="r1")
    store.delete_job(job.id, now=2000)
    assert add_job(store, key="r1").id != job.id


def test_an_unfinished_job_whose_time_is_over_is_ended_and_goes_next_time(world):
    store, artifacts = world
    frame = put(artifacts, b"frame", 1005)
    job = add_job(store, units=2, expires_s=2000.0)
    finish(store, job.id, frames={"0": frame})
    store.start_unit(job.id, 1)
    heard = []
    store.subscribe(heard.append)
    assert store.sweep(2000) == Swept(expired=(job.id,))
    ended = store.job(job.id)
    assert (ended.state, ended.reason, ended.finished_s) == (JobState.EXPIRED, TIME_IS_OVER, 2000.0)
    assert [event.kind for event in heard] == [EventKind.EXPIRED]
    assert store.units(job.id)[1].state is UnitState.WAITING
    assert not store.finish_unit(job.id, 1, result={}, now=2001)
    assert store.sweep(2060) == Swept(jobs=(job.id,), files=(f"{frame}.png",))


def test_what_never_expires_stays(world):
    store, artifacts = world
    job = done_job(store, [put(artifacts, b"frame", 1005)], expires_s=None)
    store.add_scene(scene_of("s1"))
    assert store.sweep(1e12) == Swept()
    assert store.job(job.id) == job


def test_scenes_go_with_their_folders_unless_an_unfinished_job_needs_them(world, tmp_path):
    store, _ = world
    places = {name: scene_folder(tmp_path, name, at_s=1999.0) for name in ("free", "needed")}
    for name, place in places.items():
        store.add_scene(scene_of(name, str(place), expires_s=2000.0))
    job = add_job(store, spec=spec_of("needed"))
    assert store.sweep(1999).scenes == ()
    assert store.sweep(2000).scenes == ("free",)
    assert (places["free"].exists(), places["needed"].exists()) == (False, True)
    store.record(job.id, JobEvent.GIVEN_UP, now=2001)
    assert store.sweep(2002).scenes == ("needed",)
    assert not places["needed"].exists()


def test_what_no_row_refers_to_goes_after_the_grace_period(world, tmp_path):
    store, artifacts = world
    lost, young = put(artifacts, b"lost", 1000), put(artifacts, b"young", 2000)
    half, uploading = scene_folder(tmp_path, "half", 1000), scene_folder(tmp_path, "uploading", 2000)
    swept = store.sweep(2050)
    assert swept.files == (f"{lost}.png", "half")
    assert (half.exists(), uploading.exists(), artifacts.has(young)) == (False, True, True)


def test_all_files_are_checked_once_in_a_grace_period_only(world):
    store, artifacts = world
    store.sweep(5000)
    lost = put(artifacts, b"lost", 1000)
    assert store.sweep(5000 + GRACE_S - 1).files == ()
    assert store.sweep(5000 + GRACE_S).files == (f"{lost}.png",)


def test_files_left_by_a_crash_after_deleting_rows_are_swept(world, monkeypatch):
    store, artifacts = world
    frame = put(artifacts, b"frame", 900)
    done_job(store, [frame])

    def crash(freed):
        raise RuntimeError("the process is gone")

    with monkeypatch.context() as patched:
        patched.setattr(artifacts, "drop", crash)
        with pytest.raises(RuntimeError):
            store.sweep(2000)
    assert store.list_jobs() == []
    assert artifacts.has(frame)
    assert store.sweep(2001).files == (f"{frame}.png",)


def test_many_expire_at_once(world, tmp_path):
    store, artifacts = world
    frames = [put(artifacts, str(i).encode(), 1005) for i in range(3)]
    jobs = [done_job(store, [frames[i % 3]]) for i in range(60)]
    swept = store.sweep(2000)
    assert swept.jobs == tuple(sorted(job.id for job in jobs))
    assert sorted(swept.files) == sorted(f"{frame}.png" for frame in frames)
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


def test_a_store_without_files_sweeps_its_rows(tmp_path):
    store = JobStore.open(tmp_path / "jobs.sqlite")
    job = done_job(store, ["a" * 64])
    assert store.sweep(2000) == Swept(jobs=(job.id,))
    store.close()
