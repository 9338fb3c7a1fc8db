"""A database: how it is opened, and transactions that publish their events once they are committed.

Writers take turns. In SQLite there is one at a time (`BEGIN IMMEDIATE` between processes, a lock between threads);
in PostgreSQL rows are locked one by one, and adding events takes an advisory lock until the commit, so that
numbers of events become visible in their order: a stream that has read number n has missed none below it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from sphinx_nvs.engine.artifacts import DamagedStoreError
from sphinx_nvs.engine.store.exclusive import check_owner, lock_store, take_over
from sphinx_nvs.engine.store.upgrade import upgrade
from sphinx_nvs.engine.types.engine_errors import StoreUnavailableError
from sphinx_nvs.engine.types.jobs import Event
from sphinx_nvs.errors import InputError, OutputError

BUSY_S = 30
"""Seconds that a writer waits for another process's."""

Listener = Callable[[Event], object]

_log = logging.getLogger(__name__)


@dataclass
class Writing:
    """A transaction that writes.

    Args:
        conn: to write with.
        events: events that were added, passed to listeners after the commit.
    """

    conn: sa.Connection
    events: list[Event] = field(default_factory=list)


class Database:
    """Connections to one database, with its tables brought up to date.

    Args:
        place: path of a SQLite file, created if missing, or an SQLAlchemy URL.
        exclusive: whether it is claimed for the engine of this process; see `store.exclusive`.

    Raises:
        InputError: it cannot be opened, another engine claimed it, or its tables are newer than this package.
    """

    def __init__(self, place: Path | str, *, exclusive: bool = False) -> None:
        url = _url(place)
        self.name = url.render_as_string(hide_password=True)
        # Threads of this process wait for each other here, without SQLite's polling; other processes' writers wait in
        # `BEGIN IMMEDIATE`.
        self._lock = threading.Lock() if url.get_backend_name() == "sqlite" else contextlib.nullcontext()
        self._listeners: list[Listener] = []
        self._engine = _engine(url, self.name)
        with contextlib.ExitStack() as undo:
            undo.callback(self._engine.dispose)
            try:
                if exclusive:
                    undo.callback(lock_store(self._engine, self.name))
                # Under the claim: two engines that start at once must not both migrate.
                upgrade(self._engine, self.name)
                self._token = self._take_over() if exclusive else None
            except sa.exc.DBAPIError as error:
                found = f"it cannot be opened ({_reason(error)})"
                hint = "correct the path or URL, or restore a copy if it is damaged"
                raise InputError(f"store {self.name}", found, hint) from error
            self._closing = undo.pop_all()

    def close(self) -> None:
        """Closes every connection, and releases the claim."""
        self._closing.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database.

        Raises:
            StoreUnavailableError: the database cannot be read.
            DamagedStoreError: its file is damaged.
        """
        with self._in_words("read"), self._engine.connect() as conn, conn.begin():
            yield conn

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writing]:
        """A transaction that is committed whole or not at all; then its events are published.

        Raises:
            OutputError: the disk is full.
            StoreUnavailableError: the database refuses for another reason.
            FencedError: another engine has taken over.
            DamagedStoreError: its file is damaged.
        """
        with (
            self._in_words("written"),
            self._lock,
            self._engine.connect().execution_options(sphinx_writes=True) as conn,
            conn.begin(),
        ):
            if self._token is not None:
                check_owner(conn, self._token)
            writing = Writing(conn)
            yield writing
        # After the commit and outside of the lock: a listener that reads the store finds the event there, and does not
        # wait for itself.
        self._publish(writing.events)

    def _take_over(self) -> str:
        """Makes this engine the only one that writes; returns its token."""
        with self._engine.connect().execution_options(sphinx_writes=True) as conn, conn.begin():
            return take_over(conn)

    @contextlib.contextmanager
    def _in_words(self, done: str) -> Iterator[None]:
        """Turns the database's refusals into one sentence; errors in our own statements are raised as they are."""
        try:
            yield
        except sa.exc.DatabaseError as error:
            # Exactly this class: its subclasses are refusals of a database that works, a malformed file is none of
            # them.
            if type(error) is sa.exc.DatabaseError:
                found = f"the store of jobs is damaged ({_reason(error)})"
                raise DamagedStoreError(f"{found}; restore a copy, or start a new folder") from error
            if isinstance(error, OperationalError):
                if _is_full(error):
                    raise OutputError("the store of jobs", "the disk is full", "free some space") from error
                found = f"the store of jobs cannot be {done} ({_reason(error)})"
                raise StoreUnavailableError(f"{found}; retry later") from error
            raise

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Has `listener` called with every new event of this process, after its commit, on the thread that wrote it.

        Returns:
            What ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _publish(self, events: list[Event]) -> None:
        """Calls the listeners; one that fails changes nothing for the others."""
        for event in events:
            for listener in list(self._listeners):
                try:
                    listener(event)
                except Exception:
                    _log.exception("a listener failed", extra={"job_id": event.job_id, "seq": event.seq})


def _url(place: Path | str) -> sa.URL:
    """Address of the database; a path means SQLite."""
    if isinstance(place, Path) or "://" not in place:
        return sa.URL.create("sqlite", database=str(place))
    try:
        url = sa.make_url(place)
    except ArgumentError as error:
        hint = "give a path or postgresql+psycopg://USER@HOST/NAME"
        raise InputError("store", "its URL cannot be read", hint) from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        hint = "give a path or postgresql+psycopg://USER@HOST/NAME"
        raise InputError("store", f"rows cannot be kept in {url.get_backend_name()[:40]!r}", hint)
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise InputError("store", "it would be in memory and be lost", "give the path of a file")
    # Without a driver's name SQLAlchemy means one that the extra does not bring.
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _engine(url: sa.URL, name: str) -> sa.Engine:
    """Connections; those to SQLite are set so that a commit outlasts a loss of power."""
    is_sqlite = url.get_backend_name() == "sqlite"
    try:
        if is_sqlite and url.database is not None:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        # A PostgreSQL connection may have been closed by the other side meanwhile: it is tested before it is used.
        engine = sa.create_engine(
            url, connect_args={"timeout": BUSY_S} if is_sqlite else {}, pool_pre_ping=not is_sqlite
        )
    except (ImportError, NoSuchModuleError) as error:
        hint = "install it: pip install 'sphinx-nvs[postgres]'"
        raise InputError(f"store {name}", "a package to reach it is missing", hint) from error
    except OSError as error:
        raise InputError(
            f"store {name}", f"its folder cannot be made ({error.strerror})", "correct the path"
        ) from error
    if is_sqlite:
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """Readers beside a writer, every commit flushed, and transactions started by `_begin_sqlite` alone."""
    # Python's driver would otherwise begin transactions on its own, and too late for a writer's lock.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(conn: sa.Connection) -> None:
    """A writer takes its lock at once: one that starts as a reader could not wait for another's commit."""
    writes = conn.get_execution_options().get("sphinx_writes", False)
    conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _is_full(error: sa.exc.DBAPIError) -> bool:
    """Whether a database refuses because its disk is full: SQLITE_FULL, or PostgreSQL's 53100 (disk_full)."""
    cause = error.orig
    return getattr(cause, "sqlite_errorname", "") == "SQLITE_FULL" or getattr(cause, "sqlstate", "") == "53100"


def _reason(error: sa.exc.DBAPIError) -> str:
    """The database's message, on one line, without the statement and its values."""
    return " ".join(str(error.orig).split())
