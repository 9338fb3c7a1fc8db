"""One engine per store: a lock that its process cannot take along when it dies.

For a file of SQLite it is a transaction on an empty database beside it, `NAME.lock`, which the operating system ends
with the process, on every system; for PostgreSQL it is a session's advisory lock. A process that only reads or creates
keys opens the store without it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from sphinx_nvs.errors import InputError

ENGINE_LOCK = 0x73706877
"""PostgreSQL's advisory lock of the engine that uses the store."""

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
