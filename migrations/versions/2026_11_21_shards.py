"""shards"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shards",
        sa.Column("forecast_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("series", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("after", sa.String(length=255), nullable=True),
        sa.Column("until", sa.String(length=255), nullable=True),
        sa.ForeignKeyConstraint(
            ["forecast_id"], ["jobs.id"], name=op.f("fk_shards_forecast_id_jobs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_shards_job_id_jobs"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("forecast_id", "number", name=op.f("pk_shards")),
        sa.UniqueConstraint("job_id", name=op.f("uq_shards_job_id")),
    )


def downgrade() -> None:
    op.drop_table("shards")
