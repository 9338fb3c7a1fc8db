"""Brings a database's tables up to date, by the revisions that this package ships."""

from __future__ import annotations

import functools
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from sphinx_nvs.errors import InputError

MIGRATIONS = Path(__file__).with_name("migrations")

UPGRADE_LOCK = 0x73706878
"""PostgreSQL's advisory lock of an upgrade."""


def config() -> Config:
    """Alembic's settings: where the revisions are."""
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return made


@functools.cache
def _revisions() -> tuple[frozenset[str], str | None]:
    """All known revisions, and the newest."""
    revisions = ScriptDirectory.from_config(config())
    return frozenset(script.revision for script in revisions.walk_revisions()), revisions.get_current_head()


def upgrade(engine: sa.Engine, name: str, revision: str = "head") -> None:
    """Upgrades in one transaction, one process at a time.

    Args:
        engine: connections to the database.
        name: name of the database, for errors.
        revision: to upgrade to.

    Raises:
        InputError: the tables have a revision that this package does not know.
    """
    settings, (known, newest) = config(), _revisions()
    with engine.connect().execution_options(sphinx_writes=True) as conn, conn.begin():
        if conn.dialect.name == "postgresql":
            conn.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
        found = set(MigrationContext.configure(conn).get_current_heads())
        if found - known:
            newer = (
                f"its tables are of revision {', '.join(sorted(found))}, newer than this version of sphinx-nvs knows"
            )
            raise InputError(f"store {name}", newer, "upgrade sphinx-nvs or use another store")
        if found != {newest}:
            settings.attributes["connection"] = conn
            command.upgrade(settings, revision)
