"""Statements about scenes."""

from __future__ import annotations

import sqlalchemy as sa

from sphinx_nvs.engine.store.job_rows import IS_UNFINISHED
from sphinx_nvs.engine.store.row_codec import row_from_scene, scene_from
from sphinx_nvs.engine.store.row_types import SceneRow, SceneState
from sphinx_nvs.engine.store.tables import JOBS, SCENES
from sphinx_nvs.errors import InputError

IS_NEEDED = sa.exists().where(JOBS.c.scene_id == SCENES.c.id, IS_UNFINISHED)
"""The condition that selects scenes that an unfinished job still reads."""


def insert_scene(conn: sa.Connection, scene: SceneRow) -> None:
    """Adds a scene.

    Raises:
        InputError: its id is taken.
    """
    if read_scene(conn, scene.id) is not None:
        raise InputError("scene", f"there is one with the id {scene.id!r}", "give it another id")
    conn.execute(sa.insert(SCENES).values(**row_from_scene(scene)))


def read_scene(conn: sa.Connection, scene_id: str) -> SceneRow | None:
    """A scene."""
    row = conn.execute(sa.select(SCENES).where(SCENES.c.id == scene_id)).mappings().first()
    return None if row is None else scene_from(row)


def lock_scene(conn: sa.Connection, scene_id: str) -> bool:
    """Locks a scene until this transaction ends; False if there is none (any more)."""
    wanted = sa.select(SCENES.c.id).where(SCENES.c.id == scene_id).with_for_update()
    return conn.execute(wanted).first() is not None


def list_scenes(conn: sa.Connection, *, key_id: str | None, limit: int, before: str | None) -> list[SceneRow]:
    """Scenes, newest first, starting after the scene `before`.

    Raises:
        InputError: there is no such scene (any more).
    """
    wanted = sa.select(SCENES).order_by(SCENES.c.number.desc()).limit(limit)
    if key_id is not None:
        wanted = wanted.where(SCENES.c.key_id == key_id)
    if before is not None:
        number = conn.execute(sa.select(SCENES.c.number).where(SCENES.c.id == before)).scalar()
        if number is None:
            raise InputError("before", f"there is no scene {before!r}", "leave it out to start with the newest")
        wanted = wanted.where(SCENES.c.number < number)
    return [scene_from(row) for row in conn.execute(wanted).mappings()]


def delete_scene(conn: sa.Connection, scene_id: str) -> SceneRow | None:
    """Removes a scene's row; it as it was.

    Raises:
        InputError: an unfinished job needs it.
    """
    # A statement of its own: the next one sees jobs of the transaction that locked the scene until now.
    if not lock_scene(conn, scene_id):
        return None
    wanted = sa.select(SCENES, IS_NEEDED.label("is_needed")).where(SCENES.c.id == scene_id)
    row = conn.execute(wanted).mappings().one()
    if row["is_needed"]:
        raise InputError("scene", f"an unfinished job needs {scene_id!r}", "cancel the job first, or wait for its end")
    conn.execute(sa.delete(SCENES).where(SCENES.c.id == scene_id))
    return scene_from(row)


def posing_scenes(conn: sa.Connection) -> list[SceneRow]:
    """Scenes whose cameras are being found, oldest first."""
    wanted = sa.select(SCENES).where(SCENES.c.state == SceneState.POSING.value).order_by(SCENES.c.number)
    return [scene_from(row) for row in conn.execute(wanted).mappings()]


def finish_posing(conn: sa.Connection, scene: SceneRow) -> SceneRow | None:
    """Writes what became of a scene whose cameras were being found; None if it is gone, or is not such a one."""
    is_posing = sa.and_(SCENES.c.id == scene.id, SCENES.c.state == SceneState.POSING.value)
    kept = ("id", "key_id", "path", "created_s", "expires_s")
    values = {name: value for name, value in row_from_scene(scene).items() if name not in kept}
    row = conn.execute(sa.update(SCENES).where(is_posing).values(**values).returning(SCENES)).mappings().first()
    return None if row is None else scene_from(row)


def touch_scene(conn: sa.Connection, scene_id: str, expires_s: float | int | None) -> SceneRow | None:
    """Sets when a scene goes, never to an earlier time than before."""
    scene = read_scene(conn, scene_id)
    if scene is None:
        return None
    ends = (scene.expires_s, expires_s)
    latest = None if None in ends else max(float(end) for end in ends if end is not None)
    changed = sa.update(SCENES).where(SCENES.c.id == scene_id).values(expires_s=latest).returning(SCENES)
    return scene_from(conn.execute(changed).mappings().one())
