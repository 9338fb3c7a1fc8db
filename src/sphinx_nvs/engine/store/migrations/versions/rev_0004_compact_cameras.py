"""Target cameras of jobs in a column of their own, and the owner of the store."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column and the table; rows that are there keep their cameras in `spec`, where they are still read."""
    op.add_column("jobs", sa.Column("cameras", sa.LargeBinary()))
    op.create_table(
        "owner",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("token", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    """Drops both."""
    op.drop_table("owner")
    op.drop_column("jobs", "cameras")
