"""SQL statements about units. Only `apply` changes a state, as `types.transitions` says."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from sphinx_nvs.engine.store.row_codec import row_from_unit, unit_from
from sphinx_nvs.engine.store.tables import UNITS
from sphinx_nvs.engine.types.jobs import UnitRow
from sphinx_nvs.engine.types.transitions import UnitEvent, next_unit, unit_states_before


def is_unit(job_id: str, index: int) -> sa.ColumnElement[bool]:
    """The condition that selects one unit."""
    return sa.and_(UNITS.c.job_id == job_id, UNITS.c.index == index)


def read_units(conn: sa.Connection, job_id: str) -> list[UnitRow]:
    """A job's units, by index."""
    wanted = sa.select(UNITS).where(UNITS.c.job_id == job_id).order_by(UNITS.c.index)
    return [unit_from(row) for row in conn.execute(wanted).mappings()]


def read_unit(conn: sa.Connection, job_id: str, index: int) -> UnitRow | None:
    """One unit; None if the job has none of that index."""
    row = conn.execute(sa.select(UNITS).where(is_unit(job_id, index))).mappings().first()
    return None if row is None else unit_from(row)


def add_units(conn: sa.Connection, job_id: str, units: Sequence[UnitRow]) -> None:
    """Adds the units whose index the job does not have yet."""
    there = set(conn.execute(sa.select(UNITS.c.index).where(UNITS.c.job_id == job_id)).scalars())
    rows = [row_from_unit(job_id, unit) for unit in units if unit.index not in there]
    if rows:
        conn.execute(sa.insert(UNITS), rows)


def apply(conn: sa.Connection, where: sa.ColumnElement[bool], event: UnitEvent, **values: object) -> list[UnitRow]:
    """Has an event happen to units; those in whose state it means nothing stay as they are.

    Args:
        conn: the writing transaction.
        where: selects the units.
        event: what happens to them.
        values: further columns of the units that change.

    Returns:
        The units that changed, as they are now, by job and index.
    """
    answers = {state.value: next_unit(state, event) for state in unit_states_before(event)}
    # The table of transitions as SQL: test and change are one statement, so nothing can happen in between.
    states = sa.case({state: answer.state.value for state, answer in answers.items()}, value=UNITS.c.state)
    attempts = sa.case({state: answer.attempts for state, answer in answers.items()}, value=UNITS.c.state)
    written = {"state": states, "attempt": UNITS.c.attempt + attempts, **values}
    statement = sa.update(UNITS).where(where, UNITS.c.state.in_(answers)).values(**written).returning(UNITS)
    changed = [unit_from(row) for row in conn.execute(statement).mappings()]
    return sorted(changed, key=lambda unit: (unit.job_id, unit.index))
