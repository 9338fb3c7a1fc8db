"""Scenes whose cameras are being found: their state, and why it failed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; scenes that are there are ready."""
    op.add_column("scenes", sa.Column("state", sa.String(16), nullable=False, server_default="ready"))
    op.add_column("scenes", sa.Column("failure", sa.JSON(none_as_null=True), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Drops both."""
    op.drop_column("scenes", "failure")
    op.drop_column("scenes", "state")
