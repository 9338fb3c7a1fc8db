"""Statements about who refers to which artifact, and what expired.

A file may go once no row refers to it; rows of jobs and scenes go when their time is over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from sphinx_nvs.engine.store.database import Writing
from sphinx_nvs.engine.store.event_rows import add_events
from sphinx_nvs.engine.store.job_rows import IS_UNFINISHED, apply
from sphinx_nvs.engine.store.row_types import SceneState, Usage
from sphinx_nvs.engine.store.scene_rows import IS_NEEDED
from sphinx_nvs.engine.store.tables import ARTIFACTS, JOBS, SCENES
from sphinx_nvs.engine.types.jobs import EventKind
from sphinx_nvs.engine.types.transitions import JobEvent

JOB, SCENE = "job", "scene"
"""Kinds of holders."""

VIDEO_S = 60.0
"""A video's row is written right after its file; after these seconds it exists, or never will."""

ROW_BYTES = 4096
"""What a job's rows take beside its cameras, about."""

TIME_IS_OVER = "its time was over before it was finished"
"""Reason of a job that expired."""


def add_references(conn: sa.Connection, holder: str, holder_id: str, sizes: Mapping[str, int]) -> None:
    """Notes that a job or scene refers to artifacts of these sizes, bytes."""
    mine = sa.and_(ARTIFACTS.c.holder == holder, ARTIFACTS.c.holder_id == holder_id)
    there = set(conn.execute(sa.select(ARTIFACTS.c.digest).where(mine)).scalars())
    rows = [
        {"digest": digest, "holder": holder, "holder_id": holder_id, "bytes": size}
        for digest, size in sorted(sizes.items())
        if digest not in there
    ]
    if rows:
        conn.execute(sa.insert(ARTIFACTS), rows)


def remove_references(conn: sa.Connection, holder: str, holder_ids: sa.Select[Any]) -> None:
    """Forgets what the jobs or scenes of these ids referred to."""
    conn.execute(sa.delete(ARTIFACTS).where(ARTIFACTS.c.holder == holder, ARTIFACTS.c.holder_id.in_(holder_ids)))


def referenced_digests(conn: sa.Connection) -> set[str]:
    """Every artifact that something refers to."""
    return set(conn.execute(sa.select(ARTIFACTS.c.digest).distinct()).scalars())


def measure_usage(conn: sa.Connection, key_id: str) -> Usage:
    """A key's usage."""
    mine = sa.select(JOBS.c.id).where(JOBS.c.key_id == key_id)
    # A file that several jobs share counts once for its key.
    artifacts = (
        sa.select(ARTIFACTS.c.digest, sa.func.max(ARTIFACTS.c.bytes).label("bytes"))
        .where(ARTIFACTS.c.holder == JOB, ARTIFACTS.c.holder_id.in_(mine))
        .group_by(ARTIFACTS.c.digest)
        .subquery()
    )
    scenes = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(SCENES.c.bytes), 0)).where(
        SCENES.c.key_id == key_id
    )
    num_scenes, scene_bytes = conn.execute(scenes).one()
    of_frames = conn.execute(sa.select(sa.func.coalesce(sa.func.sum(artifacts.c.bytes), 0))).scalar_one()
    jobs = sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.key_id == key_id)
    rows = sa.func.coalesce(sa.func.sum(sa.func.length(JOBS.c.cameras) + ROW_BYTES), 0)
    of_rows = conn.execute(sa.select(rows).where(JOBS.c.key_id == key_id)).scalar_one()
    is_posing = sa.and_(SCENES.c.key_id == key_id, SCENES.c.state == SceneState.POSING.value)
    posing = conn.execute(sa.select(sa.func.count()).select_from(SCENES).where(is_posing)).scalar_one()
    return Usage(
        running_jobs=conn.execute(jobs.where(IS_UNFINISHED)).scalar_one() + posing,
        stored_jobs=conn.execute(jobs).scalar_one(),
        stored_scenes=num_scenes,
        stored_bytes=int(scene_bytes) + int(of_frames) + int(of_rows),
    )


def expire_jobs(writing: Writing, now: float | int) -> list[str]:
    """Ends unfinished jobs whose time is over; their ids."""
    late = sa.select(JOBS.c.id).where(IS_UNFINISHED, JOBS.c.expires_s <= now).order_by(JOBS.c.number)
    # A job that another transaction holds is being changed right now: it is left for the next sweep instead of waited
    # for.
    ids = list(writing.conn.execute(late.with_for_update(skip_locked=True)).scalars())
    for job_id in ids:
        apply(writing.conn, job_id, JobEvent.EXPIRED, now=now, reason=TIME_IS_OVER)
    for job_id in ids:
        add_events(writing, job_id, [(EventKind.EXPIRED, {})], now)
    return ids


def delete_expired_jobs(conn: sa.Connection, now: float | int) -> tuple[list[str], dict[str, float]]:
    """Removes finished jobs whose time is over; see `delete_jobs`.

    A job that ended in this very moment stays until the next sweep, so that its listeners read how it ended.
    """
    return delete_jobs(conn, sa.and_(JOBS.c.expires_s <= now, JOBS.c.finished_s < now), now)


def delete_jobs(
    conn: sa.Connection, where: sa.ColumnElement[bool], now: float | int
) -> tuple[list[str], dict[str, float]]:
    """Removes finished jobs with their units, events and references.

    Args:
        conn: to write with.
        where: selects among the finished jobs.
        now: epoch seconds.

    Returns:
        Their ids, and the artifacts that nothing refers to any more, each with the time since when its file must have
        been left alone to go at once. A unit writes files before its row, and may write these very bytes: a file that
        was put after the job's end, or since the oldest unfinished job was accepted, may be such a unit's. Units
        make no videos; the row of a video is written within `VIDEO_S` after its file.
    """
    over = sa.and_(~IS_UNFINISHED, where)
    ended = sa.func.max(JOBS.c.finished_s)
    mine = (
        sa.select(ARTIFACTS.c.digest, ended).join(JOBS, JOBS.c.id == ARTIFACTS.c.holder_id).group_by(ARTIFACTS.c.digest)
    )
    ends = dict(map(tuple, conn.execute(mine.where(ARTIFACTS.c.holder == JOB, over))))
    videos = set(conn.execute(sa.select(JOBS.c.video).where(over)).scalars())
    remove_references(conn, JOB, sa.select(JOBS.c.id).where(over))
    ids = conn.execute(sa.delete(JOBS).where(over).returning(JOBS.c.id)).scalars().all()
    oldest = conn.execute(sa.select(sa.func.min(JOBS.c.created_s)).where(IS_UNFINISHED)).scalar()
    freed = set(ends) - referenced_digests(conn) if ends else set()
    of_units = math.inf if oldest is None else oldest
    left_alone = {digest: now - VIDEO_S if digest in videos else min(ends[digest], of_units) for digest in freed}
    return sorted(ids), dict(sorted(left_alone.items()))


def delete_expired_scenes(conn: sa.Connection, now: float | int) -> dict[str, str]:
    """Removes scenes whose time is over and that no unfinished job needs; their paths by id."""
    # As in `delete_scene`: a job that is being accepted comes first.
    conn.execute(sa.select(SCENES.c.id).where(SCENES.c.expires_s <= now).with_for_update())
    over = sa.and_(SCENES.c.expires_s <= now, ~IS_NEEDED)
    remove_references(conn, SCENE, sa.select(SCENES.c.id).where(over))
    gone = conn.execute(sa.delete(SCENES).where(over).returning(SCENES.c.id, SCENES.c.path))
    return dict(map(tuple, gone))


def scene_paths(conn: sa.Connection) -> set[str]:
    """Paths of the scenes that have rows."""
    return set(conn.execute(sa.select(SCENES.c.path)).scalars())
