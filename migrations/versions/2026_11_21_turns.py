"""turns in the queue"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PENDING, RUNNING = sa.text("state = 'pending'"), sa.text("state = 'running'")


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("parked", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("slot", sa.String(length=64), nullable=True))
    op.drop_index("ix_jobs_workspace_state", "jobs")
    op.create_index("ix_jobs_state", "jobs", ["state", "id", "workspace"])
    pending = {"sqlite_where": PENDING, "postgresql_where": PENDING}
    op.create_index("ix_jobs_turns", "jobs", ["state", "priority", "id"], **pending)
    op.create_index("ix_jobs_waiting", "jobs", ["workspace", "state", "priority", "id"], **pending)
    op.create_index("ix_jobs_running", "jobs", ["state", "workspace"], sqlite_where=RUNNING, postgresql_where=RUNNING)


def downgrade() -> None:
    for name in ("ix_jobs_running", "ix_jobs_waiting", "ix_jobs_turns", "ix_jobs_state"):
        op.drop_index(name, "jobs")
    op.create_index("ix_jobs_workspace_state", "jobs", ["workspace", "state"])
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("slot")
        batch_op.drop_column("parked")
