"""One engine per store: a lock that its process cannot take along when it dies.

For a file of SQLite it is a transaction on an empty database beside it, `NAME.lock`, which the operating system ends
with the process, on every system; for PostgreSQL it is a session's advisory lock. A process that only reads or creates
keys opens the store without it.

A lock can be lost beneath its owner: somebody deletes the file, a network ends the session. So the engine also writes a
token of its own to the store, and every transaction of its checks that it is still there (a fencing token, Kleppmann,
"How to do distributed locking", 2016). Of two engines on one store only the later one writes.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from sphinx_nvs.engine.store.tables import OWNER
from sphinx_nvs.engine.types.engine_errors import FencedError
from sphinx_nvs.errors import InputError

ENGINE_LOCK = 0x73706877
"""PostgreSQL's advisory lock of the engine that uses the store."""

_OWNER = 1
"""Id of the only row."""

_HINT = "stop that one, or give this one a place of its own"


def lock_store(engine: sa.Engine, name: str) -> Callable[[], None]:
    """Claims a store for one engine.

    Args:
        engine: connections to it.
        name: name of the database, for errors.

    Returns:
        A function that releases it.

    Raises:
        InputError: another engine uses it; names the folder.
    """
    if engine.dialect.name == "postgresql":
        return _lock_session(engine, name)
    return _lock_beside(Path(str(engine.url.database)).resolve())


def take_over(conn: sa.Connection) -> str:
    """Writes a new token to the store and returns it; engines with another one write nothing any more."""
    token = secrets.token_hex(16)
    conn.execute(sa.delete(OWNER))
    conn.execute(sa.insert(OWNER).values(id=_OWNER, token=token))
    return token


def check_owner(conn: sa.Connection, token: str) -> None:
    """Raises FencedError unless the store has this token; it stays until the transaction ends."""
    found = conn.execute(sa.select(OWNER.c.token).with_for_update(read=True)).scalar()
    if found != token:
        raise FencedError("the store of jobs was taken over by another engine; this one stops")


def _lock_beside(path: Path) -> Callable[[], None]:
    """Claims a file of SQLite."""
    beside = path.with_name(f"{path.name}.lock")
    with contextlib.ExitStack() as undo:
        try:
            # The thread that closes the store may not be the one that opened it.
            connection = sqlite3.connect(beside, timeout=0, isolation_level=None, check_same_thread=False)
            undo.callback(connection.close)
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise InputError(f"folder {path.parent}", "another engine uses it", _HINT) from error
            hint = f"check its permissions, or delete {beside.name} if no engine uses it"
            raise InputError(f"folder {path.parent}", f"it cannot be claimed ({error})", hint) from error
        undo.pop_all()
    return connection.close


def _lock_session(engine: sa.Engine, name: str) -> Callable[[], None]:
    """Claims a PostgreSQL database, for as long as a connection is open."""
    conn = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    if conn.execute(sa.select(sa.func.pg_try_advisory_lock(ENGINE_LOCK))).scalar_one():
        # A pooled connection would keep its lock when it is returned to the pool.
        conn.detach()
        return conn.close
    conn.close()
    raise InputError(f"store {name}", "another engine uses it", _HINT)
