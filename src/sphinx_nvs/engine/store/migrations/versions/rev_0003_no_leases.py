"""Units are running instead of leased: one engine owns a store, so that no lease ever runs out."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UNITS = sa.table("units", sa.column("state", sa.String(16)))


def upgrade() -> None:
    """Renames the state and drops the leases' columns."""
    op.drop_index("units_by_lease", "units")
    op.execute(sa.update(UNITS).where(UNITS.c.state == "leased").values(state="running"))
    op.drop_column("units", "lease_owner")
    op.drop_column("units", "lease_until_s")
    op.create_index("units_by_state", "units", ["state"])


def downgrade() -> None:
    """Brings the columns back, empty."""
    op.drop_index("units_by_state", "units")
    op.add_column("units", sa.Column("lease_owner", sa.String(255)))
    op.add_column("units", sa.Column("lease_until_s", sa.Double()))
    op.execute(sa.update(UNITS).where(UNITS.c.state == "running").values(state="leased"))
    op.create_index("units_by_lease", "units", ["state", "lease_until_s"])
