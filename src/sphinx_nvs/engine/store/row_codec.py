"""Rows of the database to values and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from sphinx_nvs.engine.artifacts import is_digest
from sphinx_nvs.engine.store.camera_codec import unpack_cameras
from sphinx_nvs.engine.store.row_types import KeyRow, SceneRow, SceneState
from sphinx_nvs.engine.types.jobs import (
    Event,
    EventKind,
    JobRow,
    JobSpec,
    JobState,
    Quote,
    UnitKind,
    UnitRow,
    UnitState,
)
from sphinx_nvs.json_types import JSONObject

Values = Mapping[Any, Any]
"""Values by name; SQLAlchemy's rows can also be indexed by column."""

_MATRICES = ("c2w", "K")


def json_from_spec(spec: JobSpec) -> JSONObject:
    """A request as JSON values, with the number of its cameras in their place; see `pack_cameras`."""
    values = asdict(replace(spec, c2w=(), K=(), num_omitted=spec.num_views))
    return {name: value for name, value in values.items() if name not in _MATRICES}


def spec_from_json(values: Values, cameras: bytes | None = None) -> JobSpec:
    """The request that `json_from_spec` wrote.

    Args:
        values: JSON values; rows of former versions hold the cameras, too.
        cameras: the bytes of `pack_cameras`; None leaves the cameras out.
    """
    notes = {"notes": tuple(values.get("notes", ()))}
    if "c2w" in values:
        matrices = {name: tuple(tuple(tuple(row) for row in matrix) for matrix in values[name]) for name in _MATRICES}
        return JobSpec(**{**values, **matrices, **notes})
    if cameras is None:
        return JobSpec(**{**values, **notes, "c2w": (), "K": ()})
    c2w, K = unpack_cameras(cameras, values["num_omitted"])
    return JobSpec(**{**values, **notes, "c2w": c2w, "K": K, "num_omitted": 0})


def job_from(row: Values) -> JobRow:
    """A row of `jobs`, without its cameras if that column was not read."""
    parts = {
        "spec": spec_from_json(row["spec"], row.get("cameras")),
        "state": JobState(row["state"]),
        "quote": None if row["quote"] is None else Quote(**row["quote"]),
    }
    return JobRow(**{**_named(JobRow, row), **parts})


def unit_from(row: Values) -> UnitRow:
    """A row of `units`."""
    parts = {
        "kind": UnitKind(row["kind"]),
        "state": UnitState(row["state"]),
        "targets": tuple(row["targets"]),
        "depends_on": tuple(row["depends_on"]),
    }
    return UnitRow(**{**_named(UnitRow, row), **parts})


def row_from_unit(job_id: str, unit: UnitRow) -> JSONObject:
    """A unit as a row of the given job, whatever its own `job_id` is."""
    parts = {"job_id": job_id, "targets": list(unit.targets), "depends_on": list(unit.depends_on)}
    return {**_named(UnitRow, vars(unit)), **parts, "kind": unit.kind.value, "state": unit.state.value}


def event_from(row: Values) -> Event:
    """A row of `events`."""
    return Event(**{**_named(Event, row), "kind": EventKind(row["kind"])})


def scene_from(row: Values) -> SceneRow:
    """A row of `scenes`."""
    parts = {"warnings": tuple(row["warnings"]), "state": SceneState(row["state"])}
    return SceneRow(**{**_named(SceneRow, row), **parts})


def row_from_scene(scene: SceneRow) -> JSONObject:
    """A scene as a row."""
    return {**_named(SceneRow, vars(scene)), "warnings": list(scene.warnings), "state": scene.state.value}


def key_from(row: Values) -> KeyRow:
    """A row of `keys`."""
    return KeyRow(**_named(KeyRow, row))


def digests_in(value: object) -> Iterator[str]:
    """Every artifact digest in JSON values, at any depth."""
    if isinstance(value, str):
        if is_digest(value):
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from digests_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from digests_in(part)


def _named(kind: type, row: Values) -> JSONObject:
    """The values of a dataclass's fields."""
    return {field.name: row[field.name] for field in fields(kind)}
