"""Indices for what is asked often: streams, leases, pages, sweeps."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDICES = {
    "jobs_by_state": ("jobs", ["state"]),
    "jobs_by_key": ("jobs", ["key_id", "number"]),
    "jobs_by_scene": ("jobs", ["scene_id"]),
    "jobs_by_expiry": ("jobs", ["expires_s"]),
    "units_by_lease": ("units", ["state", "lease_until_s"]),
    "events_by_job": ("events", ["job_id", "seq"]),
    "scenes_by_key": ("scenes", ["key_id", "number"]),
    "scenes_by_expiry": ("scenes", ["expires_s"]),
    "artifacts_by_holder": ("artifacts", ["holder", "holder_id"]),
}


def upgrade() -> None:
    """Makes the indices."""
    for name, (table, columns) in INDICES.items():
        op.create_index(name, table, columns)


def downgrade() -> None:
    """Drops the indices."""
    for name, (table, _) in INDICES.items():
        op.drop_index(name, table)
