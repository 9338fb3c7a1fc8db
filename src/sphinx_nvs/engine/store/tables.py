"""The tables. What changes here needs a revision in `migrations/versions`; a test compares the two.

Times are epoch seconds. `number` and `seq` ascend and are never reused, so that they can be cursors.
"""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()


class _Float(sa.TypeDecorator[float]):
    """A float in double precision: `sa.Float` is 24 bits wide on some databases.

    SQLite stores whole numbers as integers, and its RETURNING returns them as such.
    """

    impl = sa.Double
    cache_ok = True

    def process_result_value(self, value: float | int | str | None, dialect: sa.Dialect) -> float | None:
        """Floats stay floats."""
        return None if value is None else float(value)


# SQLite numbers rows itself only where the type is its plain INTEGER.
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Seconds = _Float()
_Json = sa.JSON(none_as_null=True)

JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("number", _Number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("key_id", sa.String(64), nullable=False),
    sa.Column("scene_id", sa.String(64), nullable=False),
    sa.Column("spec", _Json, nullable=False),
    sa.Column("cameras", sa.LargeBinary()),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    sa.Column("created_s", _Seconds, nullable=False),
    sa.Column("finished_s", _Seconds),
    sa.Column("expires_s", _Seconds),
    sa.Column("quote", _Json),
    sa.Column("quality", _Float()),
    sa.Column("reason", sa.Text(), nullable=False),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("video", sa.String(64)),
    sa.UniqueConstraint("key_id", "idempotency_key", name="jobs_idempotency"),
    sa.Index("jobs_by_state", "state"),
    sa.Index("jobs_by_key", "key_id", "number"),
    sa.Index("jobs_by_scene", "scene_id"),
    sa.Index("jobs_by_expiry", "expires_s"),
    sqlite_autoincrement=True,
)

UNITS = sa.Table(
    "units",
    METADATA,
    sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("index", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("targets", _Json, nullable=False),
    sa.Column("depends_on", _Json, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer(), nullable=False),
    sa.Column("result", _Json),
    sa.Column("error", sa.Text()),
    sa.Index("units_by_state", "state"),
)

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("seq", _Number, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("at_s", _Seconds, nullable=False),
    sa.Column("data", _Json, nullable=False),
    sa.Index("events_by_job", "job_id", "seq"),
    sqlite_autoincrement=True,
)

SCENES = sa.Table(
    "scenes",
    METADATA,
    sa.Column("number", _Number, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("key_id", sa.String(64), nullable=False),
    sa.Column("path", sa.Text(), nullable=False),
    sa.Column("digest", sa.String(64)),
    sa.Column("num_views", sa.Integer(), nullable=False),
    sa.Column("width", sa.Integer(), nullable=False),
    sa.Column("height", sa.Integer(), nullable=False),
    sa.Column("warnings", _Json, nullable=False),
    sa.Column("bytes", sa.BigInteger(), nullable=False),
    sa.Column("created_s", _Seconds, nullable=False),
    sa.Column("expires_s", _Seconds),
    sa.Column("state", sa.String(16), nullable=False, server_default="ready"),
    sa.Column("failure", _Json, nullable=False, server_default="{}"),
    sa.Index("scenes_by_key", "key_id", "number"),
    sa.Index("scenes_by_expiry", "expires_s"),
    sqlite_autoincrement=True,
)

ARTIFACTS = sa.Table(
    "artifacts",
    METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("holder", sa.String(8), primary_key=True),
    sa.Column("holder_id", sa.String(64), primary_key=True),
    sa.Column("bytes", sa.BigInteger(), nullable=False),
    sa.Index("artifacts_by_holder", "holder", "holder_id"),
)
"""Who refers to which file: `holder` is `job` or `scene`, and the file's expiry is its last holder's."""

KEYS = sa.Table(
    "keys",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("created_s", _Seconds, nullable=False),
    sa.Column("revoked_s", _Seconds),
    sa.Column("limits", _Json, nullable=False),
)

SHARES = sa.Table(
    "shares",
    METADATA,
    sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("created_s", _Seconds, nullable=False),
)
"""Links to the videos of jobs, for anyone who has the link: one for each job, stored as a hash."""

OWNER = sa.Table(
    "owner",
    METADATA,
    sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("token", sa.String(64), nullable=False),
)
"""One row: the engine that may write. See `store.exclusive`."""
