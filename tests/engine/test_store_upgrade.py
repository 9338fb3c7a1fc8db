"""Opening a store: its tables are made or upgraded, and what cannot be used is refused in one sentence."""

import dataclasses
import io
import json
import signal
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from store_fakes import add_job, finish, open_world, scene_of, spec_of

from sphinx_nvs.engine.artifacts import DamagedError
from sphinx_nvs.engine.store import JobStore
from sphinx_nvs.engine.store.tables import METADATA
from sphinx_nvs.engine.store.upgrade import config, upgrade
from sphinx_nvs.engine.types.jobs import EventKind, JobState, UnitState
from sphinx_nvs.engine.types.transitions import JobEvent
from sphinx_nvs.errors import InputError

REVISIONS = [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()][::-1]


def engine_of(path):
    """Connections to a file, outside a store."""
    return sa.create_engine(f"sqlite:///{path}")


def revision_of(path):
    """Which tables a file has."""
    with sqlite3.connect(path) as connection:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    connection.close()
    return revision


def test_a_fresh_folder_gets_the_newest_tables(tmp_path):
    path = tmp_path / "deep" / "down" / "jobs.sqlite"
    JobStore.open(path).close()
    assert revision_of(path) == REVISIONS[-1]
    store = JobStore.open(path)
    job = add_job(store)
    store.close()
    again = JobStore.open(str(path))
    assert again.job(job.id) == job
    again.close()


def test_the_revisions_lead_to_the_tables_of_the_code(tmp_path):
    JobStore.open(tmp_path / "jobs.sqlite").close()
    engine = engine_of(tmp_path / "jobs.sqlite")
    with engine.connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn), METADATA) == []
    engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_an_older_store_is_upgraded_with_what_it_holds(tmp_path, revision):
    path = tmp_path / "jobs.sqlite"
    engine = engine_of(path)
    upgrade(engine, "old", revision)
    with engine.begin() as conn:
        row = {"id": "key_1", "name": "old", "hash": "0" * 64, "created_s": 1.0, "limits": {}}
        conn.execute(sa.insert(METADATA.tables["keys"]).values(**row))
    engine.dispose()
    assert revision_of(path) == revision
    store = JobStore.open(path)
    assert [key.name for key in store.list_keys()] == ["old"]
    store.close()
    assert revision_of(path) == REVISIONS[-1]


def test_a_unit_that_was_leased_is_running_and_waits_again_at_the_next_start(tmp_path):
    path = tmp_path / "jobs.sqlite"
    engine = engine_of(path)
    upgrade(engine, "old", "0002")
    with engine.begin() as conn:
        job = "'job_1', 'k', 'scene', :spec, 'queued', 'none', 1.0, ''"
        columns = "id, key_id, scene_id, spec, state, level, created_s, reason"
        spec = json.dumps(dataclasses.asdict(spec_of()))
        conn.execute(sa.text(f"INSERT INTO jobs ({columns}) VALUES ({job})"), {"spec": spec})
        columns = 'job_id, "index", kind, targets, depends_on, state, attempt, lease_owner, lease_until_s'
        unit = "'job_1', 0, 'regression', '[0]', '[]', 'leased', 2, 'engine', 99.0"
        conn.execute(sa.text(f"INSERT INTO units ({columns}) VALUES ({unit})"))
    engine.dispose()
    store = JobStore.open(path)
    (unit,) = store.units("job_1")
    assert (unit.state, unit.attempt) == (UnitState.RUNNING, 2)
    assert [(row.state, row.attempt) for row in store.release_units()] == [(UnitState.WAITING, 1)]
    store.close()


def test_an_upgrade_that_fails_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "jobs.sqlite"
    engine = engine_of(path)
    upgrade(engine, "old", REVISIONS[0])
    with engine.begin() as conn:
        conn.exec_driver_sql("CREATE INDEX scenes_by_expiry ON keys (name)")
    engine.dispose()
    with pytest.raises(InputError, match="index scenes_by_expiry already exists"):
        JobStore.open(path)
    assert revision_of(path) == REVISIONS[0]
    with sqlite3.connect(path) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    connection.close()
    assert "jobs_by_state" not in names


@pytest.mark.parametrize("revisions", [["9999"], ["0001", "9999"]])
def test_a_newer_store_is_refused_and_left_alone(tmp_path, revisions):
    path = tmp_path / "jobs.sqlite"
    JobStore.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.executemany("INSERT INTO alembic_version VALUES (?)", [(revision,) for revision in revisions])
    connection.close()
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        JobStore.open(path)
    assert str(caught.value) == (
        f"store sqlite:///{path}: its tables are of revision {', '.join(revisions)}, newer than this version of "
        "sphinx-nvs knows; upgrade sphinx-nvs or use another store"
    )
    assert path.read_bytes() == before


def spoil(path, kind):
    """Makes something of a path that is no store."""
    if kind == "text":
        path.write_bytes(b"no database " * 1000)
    elif kind == "folder":
        path.mkdir()
    elif kind == "another program's":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE jobs (a)")
        connection.close()
    else:
        JobStore.open(path).close()
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if kind == "half" else data[:4096] + b"\xab" * (len(data) - 4096))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "file is not a database"),
        ("folder", "unable to open database file"),
        ("another program's", "table jobs already exists"),
        ("half", "database disk image is malformed"),
        ("overwritten", "database disk image is malformed"),
    ],
)
@pytest.mark.parametrize("exclusive", [False, True])
def test_an_unusable_store_is_refused_in_one_sentence(tmp_path, kind, reason, exclusive):
    path = tmp_path / "jobs.sqlite"
    spoil(path, kind)
    with pytest.raises(InputError) as caught:
        JobStore.open(path, exclusive=exclusive)
    hint = "correct the path or URL, or restore a copy if it is damaged"
    assert str(caught.value) == f"store sqlite:///{path}: it cannot be opened ({reason}); {hint}"


def test_damage_that_comes_later_is_one_sentence(tmp_path):
    path = tmp_path / "jobs.sqlite"
    store = JobStore.open(path)
    add_job(store)
    store.close()
    store = JobStore.open(path)
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xab" * (len(data) - 8192))
    events = "the store of jobs is damaged (database disk image is malformed); restore a copy, or start a new folder"
    for ask in (store.list_jobs, lambda: add_job(store)):
        with pytest.raises(DamagedError) as caught:
            ask()
        assert str(caught.value) == events
    store.close()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("mysql://x/y", "store: rows cannot be kept in 'mysql'; give a path or postgresql+psycopg://USER@HOST/NAME"),
        ("sqlite://", "store: it would be in memory and be lost; give the path of a file"),
        ("://", "store: its URL cannot be read; give a path or postgresql+psycopg://USER@HOST/NAME"),
        (
            "postgresql+nothing://me:secret@host/x",
            "store postgresql+nothing://me:***@host/x: a package to reach it is missing",
        ),
    ],
)
def test_addresses_that_are_none_are_one_sentence(place, message):
    with pytest.raises(InputError) as caught:
        JobStore.open(place)
    assert str(caught.value).startswith(message)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="its folder cannot be made"):
        JobStore.open(tmp_path / "file" / "jobs.sqlite")


# One engine ---------------------------------------------------------------------------------------------------------


def test_one_engine_claims_a_store_and_readers_open_it_too(tmp_path):
    path = tmp_path / "jobs.sqlite"
    first = JobStore.open(path, exclusive=True)
    with pytest.raises(InputError) as caught:
        JobStore.open(path, exclusive=True)
    hint = "stop that one, or give this one a place of its own"
    assert str(caught.value) == f"folder {tmp_path}: another engine uses it; {hint}"
    looker = JobStore.open(path)
    job = add_job(first)
    assert looker.job(job.id) == job
    looker.close()
    with pytest.raises(InputError, match="another engine uses it"):
        JobStore.open(path, exclusive=True)
    first.close()
    JobStore.open(path, exclusive=True).close()


def test_an_engine_that_fails_to_open_releases_its_claim(tmp_path):
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(InputError, match="is not a database"):
        JobStore.open(path, exclusive=True)
    path.unlink()
    JobStore.open(path, exclusive=True).close()


def test_an_unusable_lock_file_is_one_sentence(tmp_path):
    (tmp_path / "jobs.sqlite.lock").write_bytes(b"no database " * 1000)
    with pytest.raises(InputError) as caught:
        JobStore.open(tmp_path / "jobs.sqlite", exclusive=True)
    hint = "check its permissions, or delete jobs.sqlite.lock if no engine uses it"
    assert str(caught.value) == f"folder {tmp_path}: it cannot be claimed (file is not a database); {hint}"


CLAIMING = """
import sys, time
from pathlib import Path
from sphinx_nvs.engine.store import JobStore

store = JobStore.open(Path(sys.argv[1]), exclusive=True)
sys.stdout.write("claimed\\n")
sys.stdout.flush()
time.sleep(600)
"""


def test_a_claim_ends_with_its_process(tmp_path):
    path = tmp_path / "jobs.sqlite"
    engine = subprocess.Popen([sys.executable, "-c", CLAIMING, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert engine.stdout.readline() == "claimed\n"
        with pytest.raises(InputError, match="another engine uses it"):
            JobStore.open(path, exclusive=True)
    finally:
        engine.kill()
        engine.communicate()
    assert engine.returncode == -signal.SIGKILL
    JobStore.open(path, exclusive=True).close()


# PostgreSQL, as far as it can be tested without a server -------------------------------------------------------------


def statements_of_everything(folder):
    """The statements of every method of the store."""
    store, artifacts = open_world(folder)
    heard = {}
    engine = store._database._engine
    sa.event.listen(engine, "before_execute", lambda conn, said, *rest: heard.setdefault(str(said), said))
    frame = artifacts.put(b"frame")
    jobs = [add_job(store, units=2, key="r1" if i else None, expires_s=2000.0) for i in range(2)]
    finish(store, jobs[0].id, frames={"0": frame})
    store.add_units(jobs[0].id, [])
    store.add_events(jobs[0].id, [(EventKind.PROGRESS, {})], now=1001)
    store.events(jobs[0].id)
    store.start_unit(jobs[0].id, 1)
    store.give_up_unit(jobs[0].id, 1, error="no", most_attempts=3)
    store.release_units()
    store.add_scene(scene_of("s1", expires_s=1500.0))
    store.touch_scene("s1", 1600)
    store.list_scenes(key_id="k", before="s1")
    store.delete_scene("s1")
    key, secret = store.add_key("laptop", now=1000)
    store.key_of(secret)
    store.revoke_key(key.id, now=1001)
    store.list_keys()
    store.usage("k")
    store.unfinished_jobs()
    store.list_jobs(key_id="k", state=JobState.QUEUED, before=jobs[1].id)
    store.record(jobs[1].id, JobEvent.REFINED, now=1010)
    store.set_video(jobs[1].id, frame)
    store.delete_job(jobs[1].id, now=1011)
    store.sweep(3000)
    store.sweep(3001)
    store.close()
    return list(heard.values())


def test_every_statement_compiles_for_postgresql(tmp_path):
    said = statements_of_everything(tmp_path)
    texts = [str(one.compile(dialect=postgresql.dialect())) for one in said if not isinstance(one, str)]
    assert len(texts) >= 40
    assert {text.split()[0] for text in texts} >= {"SELECT", "INSERT", "UPDATE", "DELETE"}
    assert any("FOR UPDATE" in text and "FROM jobs" in text for text in texts)


def test_every_revision_compiles_for_postgresql():
    said = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": said, "target_metadata": METADATA}
    )
    with Operations.context(context):
        for script in list(ScriptDirectory.from_config(config()).walk_revisions())[::-1]:
            script.module.upgrade()
    text = said.getvalue()
    assert text.count("CREATE TABLE") == len(METADATA.tables)
    assert "number BIGSERIAL NOT NULL" in text
    assert "expires_s DOUBLE PRECISION" in text
    for table in METADATA.tables.values():
        for index in table.indexes:
            assert f"CREATE INDEX {index.name} ON {table.name}" in text
