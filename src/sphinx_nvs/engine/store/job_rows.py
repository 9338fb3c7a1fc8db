"""SQL statements about jobs. Only `apply` changes a state, as `types.transitions` says."""

from __future__ import annotations

import math
import secrets
from dataclasses import asdict

import sqlalchemy as sa

from sphinx_nvs.engine.store.camera_codec import pack_cameras
from sphinx_nvs.engine.store.row_codec import job_from, json_from_spec
from sphinx_nvs.engine.store.tables import JOBS, UNITS
from sphinx_nvs.engine.store.unit_rows import apply as apply_to_units
from sphinx_nvs.engine.types.jobs import FINAL_STATES, JobRow, JobSpec, JobState, Quote
from sphinx_nvs.engine.types.transitions import Effect, JobEvent, UnitEvent, next_job
from sphinx_nvs.errors import InputError

IS_UNFINISHED = JOBS.c.state.not_in([state.value for state in FINAL_STATES])
"""The condition that selects jobs for which something can still happen."""

CANCELLED_S = 900.0
"""Seconds that a cancelled job's rows and files stay: long enough for its client to read how it ended."""

SUMMARY = tuple(column for column in JOBS.c if column.name != "cameras")
"""What lists read of a job: a page of long paths would otherwise be hundreds of megabytes in memory."""


def read_job(conn: sa.Connection, job_id: str, *, locked: bool = False) -> JobRow | None:
    """A job; with `locked`, no other transaction can change it before this one ends."""
    wanted = sa.select(JOBS).where(JOBS.c.id == job_id)
    row = conn.execute(wanted.with_for_update() if locked else wanted).mappings().first()
    return None if row is None else job_from(row)


def read_unfinished(conn: sa.Connection, job_id: str) -> JobRow | None:
    """A job, locked, if something can still happen to it."""
    job = read_job(conn, job_id, locked=True)
    return None if job is None or job.state.is_final else job


def read_unfinished_jobs(conn: sa.Connection) -> list[JobRow]:
    """Jobs for which something can still happen, in order of acceptance."""
    return [
        job_from(row) for row in conn.execute(sa.select(JOBS).where(IS_UNFINISHED).order_by(JOBS.c.number)).mappings()
    ]


def count_unfinished(conn: sa.Connection) -> int:
    """Number of unfinished jobs."""
    return conn.execute(sa.select(sa.func.count()).select_from(JOBS).where(IS_UNFINISHED)).scalar_one()


def find_same_request(conn: sa.Connection, key_id: str, idempotency_key: str | None, spec: JobSpec) -> JobRow | None:
    """The job of an earlier, identical request.

    Raises:
        InputError: the earlier request was different.
    """
    if idempotency_key is None:
        return None
    wanted = sa.select(JOBS).where(JOBS.c.key_id == key_id, JOBS.c.idempotency_key == idempotency_key)
    row = conn.execute(wanted).mappings().first()
    if row is None:
        return None
    job = job_from(row)
    # The key stands for the request, not for its text: the same body parsed again gives an equal specification.
    if job.spec != spec:
        found = f"{idempotency_key!r} was used for another request"
        raise InputError("idempotency_key", found, "give each request a key of its own")
    return job


def insert_job(
    conn: sa.Connection,
    spec: JobSpec,
    *,
    key_id: str,
    quote: Quote | None,
    idempotency_key: str | None,
    expires_s: float | int | None,
    now: float | int,
) -> JobRow:
    """Adds a queued job under an id that cannot be guessed."""
    job = JobRow(
        id=f"job_{secrets.token_hex(16)}",
        key_id=key_id,
        spec=spec,
        created_s=float(now),
        expires_s=None if expires_s is None else float(expires_s),
        quote=quote,
        idempotency_key=idempotency_key,
    )
    parts = {
        "spec": json_from_spec(spec),
        "cameras": pack_cameras(spec.c2w, spec.K),
        "scene_id": spec.scene,
        "state": job.state.value,
        "quote": None if quote is None else asdict(quote),
    }
    conn.execute(sa.insert(JOBS).values(**{**vars(job), **parts}))
    return job


def list_jobs(
    conn: sa.Connection, *, key_id: str | None, state: JobState | None, limit: int, before: str | None
) -> list[JobRow]:
    """Jobs without their cameras, newest first, starting after the job `before`.

    Raises:
        InputError: there is no such job (any more).
    """
    wanted = sa.select(*SUMMARY).order_by(JOBS.c.number.desc()).limit(limit)
    if key_id is not None:
        wanted = wanted.where(JOBS.c.key_id == key_id)
    if state is not None:
        wanted = wanted.where(JOBS.c.state == state.value)
    if before is not None:
        number = conn.execute(sa.select(JOBS.c.number).where(JOBS.c.id == before)).scalar()
        if number is None:
            raise InputError("before", f"there is no job {before!r}", "leave it out to start with the newest")
        wanted = wanted.where(JOBS.c.number < number)
    return [job_from(row) for row in conn.execute(wanted).mappings()]


def apply(conn: sa.Connection, job_id: str, event: JobEvent, *, now: float | int, **values: object) -> JobRow | None:
    """Has an event happen to a job, with all effects; the job is locked until the transaction ends.

    Args:
        conn: the writing transaction.
        job_id: the job.
        event: what happens to it.
        now: epoch seconds.
        values: further columns to write; those that are None stay as they are.

    Returns:
        The job as it is now; None if there is none, or if the event means nothing in its state: then nothing changed.
    """
    job = read_job(conn, job_id, locked=True)
    if job is None:
        return None
    answer = next_job(job.state, event)
    if answer.is_ignored:
        return None
    if Effect.RELEASE_UNITS in answer.effects:
        apply_to_units(conn, UNITS.c.job_id == job_id, UnitEvent.JOB_ENDED)
    given = {name: value for name, value in {"level": answer.level, **values}.items() if value is not None}
    ended: dict[str, float] = {"finished_s": float(now)} if Effect.STAMP_END in answer.effects else {}
    if event is JobEvent.CANCELLED:
        ended["expires_s"] = min(float(now) + CANCELLED_S, math.inf if job.expires_s is None else job.expires_s)
    return update_job(conn, job_id, {"state": answer.state.value, **ended, **given})


def update_job(conn: sa.Connection, job_id: str, changes: dict[str, object]) -> JobRow:
    """Writes these columns; the row as it is now."""
    changed = sa.update(JOBS).where(JOBS.c.id == job_id).values(**changes).returning(JOBS)
    return job_from(conn.execute(changed).mappings().one())
