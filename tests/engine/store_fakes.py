"""Small jobs, units and scenes for tests of the store."""

import functools
import tempfile
from pathlib import Path

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.store import JobStore, SceneRow
from sphinx_nvs.engine.types.jobs import JobSpec, UnitKind, UnitRow

POSE = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
INTRINSICS = ((60.0, 0.0, 32.0), (0.0, 60.0, 32.0), (0.0, 0.0, 1.0))


def spec_of(scene="scene", views=1, **fields):
    """A job of small frames."""
    return JobSpec(scene=scene, c2w=(POSE,) * views, K=(INTRINSICS,) * views, width=64, height=64, **fields)


def unit_of(index, **fields):
    """A preview, or a chunk after it."""
    kind = UnitKind.CHUNK if index else UnitKind.REGRESSION
    return UnitRow(job_id="", index=index, kind=kind, targets=(0,), depends_on=(0,) if index else (), **fields)


def scene_of(scene_id="scene", path="/nowhere", **fields):
    """Two photos."""
    return SceneRow(
        **{"id": scene_id, "key_id": "k", "path": path, "num_views": 2, "width": 64, "height": 64, **fields}
    )


def add_job(store, *, units=1, key_id="k", now=1000.0, spec=None, key=None, expires_s=None, quote=None):
    """A stored job."""
    rows = [unit_of(index) for index in range(units)]
    asked = {"key_id": key_id, "idempotency_key": key, "expires_s": expires_s, "quote": quote}
    job, is_new = store.create_job(spec or spec_of(), units=rows, now=now, **asked)
    assert is_new
    return job


def finish(store, job_id, index=0, *, now=1000.0, **result):
    """Starts and finishes a unit."""
    assert store.start_unit(job_id, index) is not None
    assert store.finish_unit(job_id, index, result=result, now=now)


@functools.cache
def empty_store():
    """The file of a store that holds nothing: to copy it takes less time than to make its tables."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.sqlite"
        JobStore.open(path).close()
        return path.read_bytes()


def open_world(folder, **fields):
    """A store with its artifacts and its folder of scenes."""
    if not (folder / "jobs.sqlite").exists():
        folder.mkdir(exist_ok=True)
        (folder / "jobs.sqlite").write_bytes(empty_store())
    artifacts = ArtifactStore(folder / "artifacts")
    store = JobStore.open(folder / "jobs.sqlite", artifacts=artifacts, scenes_folder=folder / "scenes", **fields)
    return store, artifacts
