"""An engine's parts: rows and files in its folder, or where the configuration says."""

import pytest

from sphinx_nvs.engine.assembly import open_parts, open_store
from sphinx_nvs.engine.config import EngineConfig
from sphinx_nvs.errors import InputError


def test_everything_is_in_the_folder(tmp_path):
    parts = open_parts(EngineConfig(folder=tmp_path, executor="inline"))
    digest = parts.artifacts.put(b"frame", suffix=".png")
    assert parts.artifacts.path(digest).is_relative_to(tmp_path / "artifacts")
    assert (tmp_path / "jobs.sqlite").is_file()
    parts.close()


def test_rows_and_files_elsewhere(tmp_path):
    folder, rows, files = tmp_path / "server", tmp_path / "rows.sqlite", tmp_path / "files"
    config = EngineConfig(folder=folder, database=f"sqlite:///{rows}", artifacts=f"file://{files}", executor="inline")
    parts = open_parts(config)
    parts.artifacts.put(b"frame", suffix=".png")
    key, secret = parts.store.add_key("alice", now=1.0)
    assert [path.suffix for path in files.rglob("*") if path.is_file()] == [".png"]
    beside = open_store(folder, database=config.database)
    assert beside.key_of(secret) == key
    beside.close()
    assert not (folder / "jobs.sqlite").exists()
    assert not (folder / "artifacts").exists()
    with pytest.raises(InputError, match="another engine uses it"):
        open_parts(EngineConfig(folder=tmp_path / "other", database=config.database, executor="inline"))
    parts.close()


def test_an_unreachable_artifact_store(tmp_path):
    with pytest.raises(InputError, match="nowhere://x cannot be reached"):
        open_parts(EngineConfig(folder=tmp_path, artifacts="nowhere://x", executor="inline"))
    with pytest.raises(InputError, match="its URL cannot be read"):
        open_parts(EngineConfig(folder=tmp_path, database="://", executor="inline"))
