"""Statements about events."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from sphinx_nvs.engine.store.database import Writing
from sphinx_nvs.engine.store.row_codec import event_from
from sphinx_nvs.engine.store.tables import EVENTS
from sphinx_nvs.engine.types.jobs import Event, EventKind
from sphinx_nvs.json_types import JSONObject

ORDER_LOCK = 0x73706879
"""PostgreSQL's advisory lock of a transaction that adds events."""

NewEvents = Sequence[tuple[EventKind, JSONObject]]
"""Kinds and data of events to add."""


def add_events(writing: Writing, job_id: str, events: NewEvents, now: float | int) -> list[Event]:
    """Adds events in order; the transaction must have taken all other locks before."""
    if not events:
        return []
    if writing.conn.dialect.name == "postgresql":
        writing.conn.execute(sa.select(sa.func.pg_advisory_xact_lock(ORDER_LOCK)))
    rows = [{"job_id": job_id, "kind": kind.value, "at_s": float(now), "data": data} for kind, data in events]
    statement = sa.insert(EVENTS).returning(EVENTS.c.seq, sort_by_parameter_order=True)
    numbers = writing.conn.execute(statement, rows).scalars().all()
    added = [event_from({"seq": seq, **row}) for seq, row in zip(numbers, rows, strict=True)]
    writing.events.extend(added)
    return added


def read_events(conn: sa.Connection, job_id: str, after: int, limit: int) -> list[Event]:
    """A job's events after a number."""
    of_job = sa.select(EVENTS).where(EVENTS.c.job_id == job_id, EVENTS.c.seq > after)
    return [event_from(row) for row in conn.execute(of_job.order_by(EVENTS.c.seq).limit(limit)).mappings()]
