"""Files by the hash of their content: whole or not there, once each, nowhere else; on a folder and through fsspec."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphinx_nvs.engine.artifacts import ArtifactStore, DamagedError, is_digest
from sphinx_nvs.errors import InputError, OutputError

NONE = "0" * 64
OLD_S, NEW_S = 1_000_000.0, 2_000_000.0


@pytest.fixture(params=["folder", "file", "memory"])
def artifacts(request, tmp_path):
    """A store in a folder, in one that is named as an address, and one that fsspec reaches."""
    if request.param == "memory":
        yield ArtifactStore(f"memory://{tmp_path.name}")
        import fsspec

        fsspec.filesystem("memory").store.clear()
        return
    place = tmp_path / "artifacts"
    yield ArtifactStore(place if request.param == "folder" else f"file://{place}")


def files_in(folder):
    """Every file, as paths from the folder on."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def age(store, digest, seconds):
    """Sets the date of a file."""
    os.utime(store.path(digest), (seconds, seconds))


def test_the_name_is_the_hash_and_the_same_bytes_are_one_file(artifacts):
    digest = artifacts.put(b"frame", suffix=".png")
    assert digest == hashlib.sha256(b"frame").hexdigest()
    assert artifacts.put(b"frame", suffix=".png") == artifacts.put(b"frame") == digest
    assert artifacts.read(digest) == b"frame"
    assert artifacts.has(digest)
    assert artifacts.sizes([digest, digest, NONE]) == {digest: 5}
    artifacts.delete(digest)
    artifacts.delete(digest)
    assert not artifacts.has(digest)


def test_names_are_for_people_too(tmp_path):
    store = ArtifactStore(tmp_path)
    digest = store.put(b"frame", suffix=".png")
    store.put(b"frame", suffix=".mp4")
    assert files_in(tmp_path) == [f"{digest[:2]}/{digest[2:4]}/{digest}.png"]
    assert store.path(digest).name == f"{digest}.png"
    for suffix in ("png", "./x", ".PNG", "." + "a" * 13, ".a.b"):
        with pytest.raises(InputError, match=r"suffix: it is .*; give a dot and up to 12 small letters or digits"):
            store.put(b"x", suffix=suffix)


def test_no_bytes_are_bytes_too(artifacts):
    digest = artifacts.put(b"")
    assert artifacts.read(digest) == b""
    assert artifacts.sizes([digest]) == {digest: 0}


def test_files_are_kept_by_their_own_suffix(tmp_path):
    store, path = ArtifactStore(tmp_path / "artifacts"), tmp_path / "Video.MP4"
    path.write_bytes(b"video")
    digest = store.put_file(path)
    assert store.path(digest).suffix == ".mp4"
    with pytest.raises(InputError) as caught:
        store.put_file(tmp_path / "gone.mp4")
    message = "file gone.mp4: it cannot be read (No such file or directory); give another file"
    assert str(caught.value) == message


def test_a_missing_artifact_is_one_sentence(artifacts):
    with pytest.raises(InputError) as caught:
        artifacts.read(NONE)
    message = "artifact 000000000000…: there is none; request it before its job or scene expires"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "name",
    ["", "..", "../../etc/passwd", "/etc/passwd", "a" * 63, "A" * 64, f"{'a' * 64}\n", "*" * 64, "a" * 60 + "/../"],
)
def test_nothing_but_a_digest_gets_through(artifacts, name):
    assert not is_digest(name)
    for ask in (artifacts.read, artifacts.has, artifacts.delete, lambda digest: artifacts.sizes([digest])):
        with pytest.raises(InputError, match=r"digest: it is .*; give the 64 hexadecimal digits"):
            ask(name)


@given(name=st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_no_text_leads_out_of_the_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "no text"
    try:
        path = ArtifactStore(folder).path(name)
    except InputError:
        return
    assert path.resolve().is_relative_to(folder.resolve())


def test_a_damaged_file_is_an_error(tmp_path):
    store = ArtifactStore(tmp_path)
    digest = store.put(b"frame")
    store.path(digest).write_bytes(b"fr")
    with pytest.raises(DamagedError, match="its bytes are not what was stored; delete it and make it again"):
        store.read(digest)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "artifacts").write_text("a file in the way")
    with pytest.raises(OutputError, match="a file or folder of that name is in the way"):
        ArtifactStore(tmp_path / "artifacts").put(b"x")


def test_addresses_that_cannot_be_reached_are_one_sentence(monkeypatch):
    sentence = "artifacts: nowhere://x cannot be reached; give a folder or s3://BUCKET/FOLDER"
    with pytest.raises(InputError, match=sentence):
        ArtifactStore("nowhere://x")

    def no_such_host(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("fsspec.core.url_to_fs", no_such_host)
    with pytest.raises(InputError, match=sentence):
        ArtifactStore("nowhere://x")


def test_files_elsewhere_have_no_path_here(tmp_path):
    store = ArtifactStore(f"memory://{tmp_path.name}")
    with pytest.raises(InputError, match="they are not on this machine; read them instead"):
        store.path(store.put(b"x"))


KILLED = """
import os, sys
from pathlib import Path
from sphinx_nvs.engine import artifacts

flush = os.fsync
def flush_and_die(handle):
    flush(handle)
    os.kill(os.getpid(), 9)
artifacts.os.fsync = flush_and_die
artifacts.ArtifactStore(Path(sys.argv[1])).put(b"x" * 1_000_000, suffix=".png")
"""


def test_a_writer_that_is_killed_leaves_no_half_file(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    store, digest = ArtifactStore(tmp_path), hashlib.sha256(b"x" * 1_000_000).hexdigest()
    assert not store.has(digest)
    (left,) = files_in(tmp_path)
    assert store.sweep(set(), now=time.time(), grace_s=3600) == [], "another writer could be at it still"
    assert store.sweep(set(), now=time.time() + 3601, grace_s=3600) == [left.rsplit("/", 1)[-1]]
    assert store.put(b"x" * 1_000_000, suffix=".png") == digest
    assert store.read(digest) == b"x" * 1_000_000


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full; free some space or write elsewhere"):
        ArtifactStore(tmp_path).put(b"x")
    assert files_in(tmp_path) == []


def put_many(folder, seed):
    """What each of several writers does: the same files in another order."""
    store = ArtifactStore(folder)
    for number in range(15):
        data = bytes([(number * (2 * seed + 1)) % 15]) * 50_000
        assert store.read(store.put(data, suffix=".png")) == data


def test_many_writers_of_the_same_bytes_make_one_file_of_each(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put_many, [tmp_path] * 8, [0, 1, 3, 4, 5, 6, 8, 9]))
    assert len(files_in(tmp_path)) == 15


def test_files_without_references_are_swept_once_they_are_old(tmp_path):
    store = ArtifactStore(tmp_path)
    held, old, young = (store.put(name, suffix=".png") for name in (b"held", b"old", b"young"))
    for digest in (held, old):
        age(store, digest, OLD_S)
    age(store, young, NEW_S)
    assert store.sweep({held}, now=NEW_S + 10, grace_s=3600) == [f"{old}.png"]
    assert (store.has(held), store.has(old), store.has(young)) == (True, False, True)


def test_bytes_that_are_put_again_are_young_again(tmp_path):
    store = ArtifactStore(tmp_path)
    digest = store.put(b"frame")
    age(store, digest, OLD_S)
    store.put(b"frame")
    assert store.sweep(set(), now=time.time(), grace_s=60) == []
    assert store.drop({digest: NEW_S}) == []
    age(store, digest, OLD_S)
    assert store.drop({digest: NEW_S, NONE: NEW_S}) == [digest]
    assert not store.has(digest)


def test_what_is_put_while_it_is_swept_survives(tmp_path, monkeypatch):
    store, digest = ArtifactStore(tmp_path), hashlib.sha256(b"frame").hexdigest()
    store.put(b"frame")
    age(store, digest, OLD_S)
    rename, place = type(tmp_path).rename, store.path(digest)

    def renamed_late(path, aside):
        if path == place:
            # Another writer puts the file between the sweep's check and its removal.
            store.put(b"frame")
        return rename(path, aside)

    monkeypatch.setattr(type(tmp_path), "rename", renamed_late)
    assert store.sweep(set(), now=NEW_S, grace_s=60) == []
    assert store.read(digest) == b"frame"


def test_files_elsewhere_are_swept_by_the_date_of_their_objects(tmp_path):
    store = ArtifactStore(f"memory://{tmp_path.name}/deep")
    held, other = store.put(b"held", suffix=".png"), store.put(b"other")
    now = time.time()
    assert store.sweep({held}, now=now + 1, grace_s=60) == []
    assert store.drop({other: now - 60}) == []
    assert store.sweep({held}, now=now + 100, grace_s=60) == [other]
    assert store.drop({held: now + 60}) == [f"{held}.png"]
    assert not store.has(held)
