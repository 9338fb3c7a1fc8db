"""Copies of remote files: fetched by concurrent threads, few of them, and removed after some time."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sphinx_nvs.engine import catalog as library_module
from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.catalog import COPIES_S, Library
from sphinx_nvs.engine.store import JobStore


@pytest.fixture
def artifacts(tmp_path):
    """A place that is not this machine."""
    yield ArtifactStore(f"memory://{tmp_path.name}")
    import fsspec

    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def library(artifacts, tmp_path, monkeypatch):
    monkeypatch.setattr(library_module, "MOST_COPIES", 3)
    store = JobStore.open(tmp_path / "jobs.sqlite")
    yield Library(store, artifacts, tmp_path, time.time)
    store.close()


def names(folder):
    return {path.name for path in (folder / "copies").iterdir()}


def test_threads_fetch_files_while_others_forget_theirs(artifacts, library, tmp_path):
    digests = [artifacts.put(bytes([i])) for i in range(40)]

    def fetch(number):
        for digest in digests[number:] + digests[:number]:
            assert library._file(digest).name == digest

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(fetch, range(0, 40, 5)))
    library._file(artifacts.put(b"one more"))
    assert len(names(tmp_path)) == 3


def test_a_file_that_is_removed_during_a_sweep_is_no_error(artifacts, library, tmp_path):
    library._file(artifacts.put(b"first"))
    (tmp_path / "copies" / ("0" * 64)).symlink_to(tmp_path / "nowhere")
    digest = artifacts.put(b"second")
    assert library._file(digest).read_bytes() == b"second"


def test_what_is_being_written_stays_and_is_not_counted(artifacts, library, tmp_path):
    digests = [artifacts.put(bytes([i])) for i in range(3)]
    for digest in digests[:2]:
        library._file(digest)
    part = f"{digests[2]}.0a0b0c0d"
    for i in range(5):
        (tmp_path / "copies" / f"{part}{i}").write_bytes(b"half")
    library._file(digests[2])
    assert names(tmp_path) == {*digests, *(f"{part}{i}" for i in range(5))}


def test_copies_and_partial_files_are_removed_after_their_rows(artifacts, library, tmp_path):
    first, second = artifacts.put(b"first"), artifacts.put(b"second")
    old = time.time() - COPIES_S - 60
    os.utime(library._file(first), (old, old))
    part = tmp_path / "copies" / f"{second}.0a0b0c0d"
    part.write_bytes(b"half")
    os.utime(part, (old, old))
    library._file(second)
    assert names(tmp_path) == {second}
