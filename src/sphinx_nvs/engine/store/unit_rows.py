"""Statements about units and their leases.

waiting --lease--> leased --finish--> done
   ^                 |
   '--give up, expire, release--'  or  poison, once it was leased as often as it may
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from sphinx_nvs.engine.store.row_codec import row_from_unit, unit_from
from sphinx_nvs.engine.store.tables import JOBS, UNITS
from sphinx_nvs.engine.types.jobs import FINAL_STATES, UnitRow, UnitState

LEASE_LOST = "the device that worked on it was lost"
"""Error of a unit whose lease ran out."""

IS_UNFINISHED = JOBS.c.state.not_in([state.value for state in FINAL_STATES])
"""Of jobs for which something can still happen."""

_OF_UNFINISHED = UNITS.c.job_id.in_(sa.select(JOBS.c.id).where(IS_UNFINISHED))
_IS_LEASED = UNITS.c.state == UnitState.LEASED.value
_NOBODYS = {"lease_owner": None, "lease_until_s": None}


def _is(job_id: str, index: int) -> sa.ColumnElement[bool]:
    """One unit."""
    return sa.and_(UNITS.c.job_id == job_id, UNITS.c.index == index)


def read_units(conn: sa.Connection, job_id: str) -> list[UnitRow]:
    """A job's units, in order."""
    of_job = sa.select(UNITS).where(UNITS.c.job_id == job_id).order_by(UNITS.c.index)
    return [unit_from(row) for row in conn.execute(of_job).mappings()]


def add_units(conn: sa.Connection, job_id: str, units: Sequence[UnitRow]) -> None:
    """Adds those that are not there yet."""
    there = set(conn.execute(sa.select(UNITS.c.index).where(UNITS.c.job_id == job_id)).scalars())
    rows = [row_from_unit(job_id, unit) for unit in units if unit.index not in there]
    if rows:
        conn.execute(sa.insert(UNITS), rows)


def free_unit(job_id: str, index: int, owner: str, now: float | int) -> sa.Select[Any]:
    """A unit, locked, if it can be leased; where another process locks it, it is passed over."""
    is_free = sa.or_(
        UNITS.c.state == UnitState.WAITING.value,
        sa.and_(_IS_LEASED, sa.or_(UNITS.c.lease_owner == owner, UNITS.c.lease_until_s <= now)),
    )
    wanted = sa.select(UNITS).where(_is(job_id, index), is_free, _OF_UNFINISHED)
    return wanted.with_for_update(skip_locked=True, of=UNITS)


def lease(
    conn: sa.Connection, job_id: str, index: int, owner: str, until_s: float | int, now: float | int
) -> UnitRow | None:
    """Gives a unit to an owner and counts the attempt; None if it is not to be had."""
    found = conn.execute(free_unit(job_id, index, owner, now)).mappings().first()
    if found is None:
        return None
    return _changed(
        conn,
        _is(job_id, index),
        state=UnitState.LEASED.value,
        attempt=found["attempt"] + 1,
        lease_owner=owner,
        lease_until_s=float(until_s),
    )[0]


def renew(conn: sa.Connection, owner: str, until_s: float | int, now: float | int) -> int:
    """Prolongs an owner's leases that have not run out; how many."""
    mine = sa.and_(_IS_LEASED, UNITS.c.lease_owner == owner, UNITS.c.lease_until_s > now)
    return len(_changed(conn, mine, lease_until_s=float(until_s)))


def give_up(conn: sa.Connection, job_id: str, index: int, owner: str, error: str, most_attempts: int | None) -> None:
    """Ends an owner's attempt, if it is its own; without a cap the attempt is given back."""
    mine = sa.and_(_is(job_id, index), _IS_LEASED, UNITS.c.lease_owner == owner)
    _changed(conn, mine, **_after_attempt(most_attempts), error=error, **_NOBODYS)


def finish(conn: sa.Connection, job_id: str, index: int, owner: str, result: dict[str, Any]) -> bool:
    """Stores what an owner made of its unit; False if the unit is not its own, or nobody waits for it."""
    mine = sa.and_(_is(job_id, index), _IS_LEASED, UNITS.c.lease_owner == owner, _OF_UNFINISHED)
    return bool(_changed(conn, mine, state=UnitState.DONE.value, result=result, error=None, **_NOBODYS))


def release(conn: sa.Connection, owner: str, most_attempts: int | None) -> list[UnitRow]:
    """Lets go of an owner's units; without a cap the attempts are given back."""
    mine = sa.and_(_IS_LEASED, UNITS.c.lease_owner == owner)
    error = {} if most_attempts is None else {"error": LEASE_LOST}
    return _changed(conn, mine, **_after_attempt(most_attempts), **error, **_NOBODYS)


def release_job(conn: sa.Connection, job_id: str) -> None:
    """Lets go of a finished job's units."""
    _changed(conn, sa.and_(_IS_LEASED, UNITS.c.job_id == job_id), state=UnitState.WAITING.value, **_NOBODYS)


def expire(conn: sa.Connection, now: float | int, most_attempts: int) -> list[UnitRow]:
    """Takes back units whose leases ran out."""
    late = sa.and_(_IS_LEASED, UNITS.c.lease_until_s <= now)
    return _changed(conn, late, **_after_attempt(most_attempts), error=LEASE_LOST, **_NOBODYS)


def _after_attempt(most_attempts: int | None) -> dict[str, Any]:
    """Waiting again, or poison; without a cap it is as if there had been no attempt."""
    if most_attempts is None:
        return {"state": UnitState.WAITING.value, "attempt": UNITS.c.attempt - 1}
    is_worn = UNITS.c.attempt >= most_attempts
    return {"state": sa.case((is_worn, UnitState.POISON.value), else_=UnitState.WAITING.value)}


def _changed(conn: sa.Connection, where: sa.ColumnElement[bool], **values: Any) -> list[UnitRow]:
    """Writes these values; the rows as they are now, in order."""
    rows = conn.execute(sa.update(UNITS).where(where).values(**values).returning(UNITS)).mappings()
    return sorted((unit_from(row) for row in rows), key=lambda unit: (unit.job_id, unit.index))
