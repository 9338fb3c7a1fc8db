"""Statements about links to videos.

A token is 24 random bytes, stored as its sha256 like the secret of a key.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from sphinx_nvs.engine.store.key_rows import hash_of
from sphinx_nvs.engine.store.tables import SHARES


def replace_share(conn: sa.Connection, job_id: str, now: float | int) -> str:
    """Makes the link of a job, in place of the one that it had; returns its token."""
    delete_share(conn, job_id)
    token = secrets.token_urlsafe(24)
    conn.execute(sa.insert(SHARES).values(job_id=job_id, hash=hash_of(token), created_s=float(now)))
    return token


def delete_share(conn: sa.Connection, job_id: str) -> None:
    """Removes the link of a job, if it has one."""
    conn.execute(sa.delete(SHARES).where(SHARES.c.job_id == job_id))


def find_shared(conn: sa.Connection, token: str) -> str | None:
    """The id of the job that a token is for; the lookup is by hash, which a client that guesses cannot control."""
    return conn.execute(sa.select(SHARES.c.job_id).where(SHARES.c.hash == hash_of(token))).scalar()
