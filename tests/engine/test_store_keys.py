"""API keys: hashes, revocation, usage."""

import hashlib

import pytest
from store_fakes import add_job, finish, open_world, scene_of

from sphinx_nvs.engine.store import JobStore, Usage
from sphinx_nvs.engine.store.references import ROW_BYTES
from sphinx_nvs.engine.types.transitions import JobEvent


@pytest.fixture
def world(tmp_path):
    opened, artifacts = open_world(tmp_path)
    yield opened, artifacts
    opened.close()


def test_a_secret_is_shown_once_and_only_its_hash_is_stored(world, tmp_path):
    store, _ = world
    key, secret = store.add_key("laptop", now=1000, limits={"rate_per_s": 2.5})
    assert secret.startswith("snvs_")
    assert len(secret) >= 48
    assert key.hash == hashlib.sha256(secret.encode()).hexdigest()
    assert (key.name, key.created_s, key.revoked_s, key.limits) == ("laptop", 1000.0, None, {"rate_per_s": 2.5})
    assert store.key_of(secret) == key
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert key.hash.encode() in stored
    assert secret.encode() not in stored
    assert secret not in repr(store.list_keys())


def test_keys_are_never_alike(world):
    store, _ = world
    made = [store.add_key("same name", now=1000) for _ in range(20)]
    assert len({key.id for key, _ in made}) == len({secret for _, secret in made}) == 20


@pytest.mark.parametrize("wrong", ["", "snvs_", "a" * 100_000, "\udcff\ud800", "' OR 1=1 --", "snvs_\0"])
def test_other_strings_are_no_keys_secret(world, wrong):
    store, _ = world
    key, secret = store.add_key("laptop", now=1000)
    assert store.key_of(wrong) is None
    assert store.key_of(secret + wrong) == (key if wrong == "" else None)
    assert store.key_of(key.hash) is None, "who reads the database cannot log in"
    assert store.key_of(key.id) is None


def test_a_revoked_key_is_refused_and_keeps_its_jobs(world):
    store, _ = world
    key, secret = store.add_key("laptop", now=1000)
    job = add_job(store, key_id=key.id)
    assert store.revoke_key(key.id, now=1001).revoked_s == 1001.0
    assert store.key_of(secret) is None
    assert store.revoke_key(key.id, now=2000).revoked_s == 1001.0, "it keeps the time at which it was revoked first"
    assert store.revoke_key("key_x", now=1) is None
    assert [row.id for row in store.list_jobs(key_id=key.id)] == [job.id]


def test_keys_are_listed_oldest_first_revoked_ones_too(world):
    store, _ = world
    second, _ = store.add_key("b", now=2000)
    first, _ = store.add_key("a", now=1000)
    store.revoke_key(first.id, now=3000)
    assert [(key.id, key.revoked_s) for key in store.list_keys()] == [(first.id, 3000.0), (second.id, None)]


def test_keys_made_beside_a_running_engine_are_valid_immediately(tmp_path):
    engine = JobStore.open(tmp_path / "jobs.sqlite", exclusive=True)
    maker = JobStore.open(tmp_path / "jobs.sqlite")
    key, secret = maker.add_key("laptop", now=1000)
    assert engine.key_of(secret) == key
    maker.revoke_key(key.id, now=1001)
    assert engine.key_of(secret) is None
    maker.close()
    engine.close()


def test_usage_counts_what_a_key_keeps_each_file_once(world):
    store, artifacts = world
    frames = [artifacts.put(bytes([number]) * 100) for number in range(3)]
    assert store.usage("k") == Usage()
    done, other, running = (add_job(store, units=2) for _ in range(3))
    row = store.usage("k").stored_bytes // 3
    assert ROW_BYTES < row < ROW_BYTES + 500
    finish(store, done.id, frames={"0": frames[0], "1": frames[1]})
    finish(store, other.id, frames={"0": frames[0], "1": frames[2]})
    assert store.usage("k") == Usage(running_jobs=3, stored_jobs=3, stored_bytes=300 + 3 * row)
    store.record(done.id, JobEvent.REFINED, now=1001)
    store.set_video(done.id, artifacts.put(b"v" * 1000))
    store.add_scene(scene_of("s1", bytes=5000))
    store.add_scene(scene_of("s2", bytes=500, key_id="another"))
    assert store.usage("k") == Usage(running_jobs=2, stored_jobs=3, stored_scenes=1, stored_bytes=6300 + 3 * row)
    assert store.usage("another") == Usage(stored_scenes=1, stored_bytes=500)
    store.delete_job(done.id, now=1002)
    assert store.usage("k") == Usage(running_jobs=2, stored_jobs=2, stored_scenes=1, stored_bytes=5200 + 2 * row)
    assert store.units(running.id)[0].result is None


def test_other_keys_files_count_for_them_alone(world):
    store, artifacts = world
    shared = artifacts.put(b"x" * 100)
    for key_id in ("a", "b"):
        job = add_job(store, key_id=key_id)
        row = store.usage(key_id).stored_bytes
        finish(store, job.id, frames={"0": shared})
    assert store.usage("a").stored_bytes == store.usage("b").stored_bytes == 100 + row
