"""trials"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trials",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("tune_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("params", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("scores", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("folder", sa.String(length=255), nullable=True),
        sa.Column("made", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_trials_job_id_jobs"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tune_id"], ["jobs.id"], name=op.f("fk_trials_tune_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_trials")),
        sa.UniqueConstraint("tune_id", "number", name=op.f("uq_trials_tune_id_number")),
    )
    op.create_index(op.f("ix_trials_folder"), "trials", ["folder"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_trials_folder"), table_name="trials")
    op.drop_table("trials")
