"""Jobs, units, events, scenes, artifacts and keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    seconds: sa.Double[float] = sa.Double()
    json, name = sa.JSON(none_as_null=True), sa.String(64)
    op.create_table(
        "jobs",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("id", name, nullable=False, unique=True),
        sa.Column("key_id", name, nullable=False),
        sa.Column("scene_id", name, nullable=False),
        sa.Column("spec", json, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("created_s", seconds, nullable=False),
        sa.Column("finished_s", seconds),
        sa.Column("expires_s", seconds),
        sa.Column("quote", json),
        sa.Column("quality", sa.Double()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("video", name),
        sa.UniqueConstraint("key_id", "idempotency_key", name="jobs_idempotency"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "units",
        sa.Column("job_id", name, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("index", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("targets", json, nullable=False),
        sa.Column("depends_on", json, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(255)),
        sa.Column("lease_until_s", seconds),
        sa.Column("result", json),
        sa.Column("error", sa.Text()),
    )
    op.create_table(
        "events",
        sa.Column("seq", number, primary_key=True, autoincrement=True),
        sa.Column("job_id", name, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("at_s", seconds, nullable=False),
        sa.Column("data", json, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "scenes",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("id", name, nullable=False, unique=True),
        sa.Column("key_id", name, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("digest", name),
        sa.Column("num_views", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("warnings", json, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_s", seconds, nullable=False),
        sa.Column("expires_s", seconds),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "artifacts",
        sa.Column("digest", name, primary_key=True),
        sa.Column("holder", sa.String(8), primary_key=True),
        sa.Column("holder_id", name, primary_key=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("id", name, primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("hash", name, nullable=False, unique=True),
        sa.Column("created_s", seconds, nullable=False),
        sa.Column("revoked_s", seconds),
        sa.Column("limits", json, nullable=False),
    )


def downgrade() -> None:
    """Drops the tables."""
    for table in ("keys", "artifacts", "scenes", "events", "units", "jobs"):
        op.drop_table(table)
