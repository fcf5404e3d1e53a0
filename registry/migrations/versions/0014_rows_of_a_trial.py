"""What a look at an experiment has read is kept for the next, and what is new is found by index.

And one index tells alone how good a window of time was.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLE = "user_interactions"
BY_TIME, BY_FEEDBACK = "ix_interactions_experiment", "ix_interactions_experiment_feedback"
WINDOW = "ix_interactions_workload_created"
QUALITY = ["role", "quality_score", "scorer_version", "user_id", "session_id"]


def upgrade() -> None:
    op.create_table(
        "trial_rows",
        sa.Column("experiment_id", sa.String(), nullable=False),
        sa.Column("answers", sa.LargeBinary(), nullable=False),
        sa.Column("prior_days", sa.Integer(), nullable=False),
        sa.Column("priors", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name="fk_trial_rows_experiment_id",
            ondelete="CASCADE",
            onupdate="CASCADE",
        ),
        sa.PrimaryKeyConstraint("experiment_id", name="pk_trial_rows"),
    )
    op.drop_index(WINDOW, TABLE)
    op.create_index(WINDOW, TABLE, ["workload", "created_at", *QUALITY])
    op.drop_index(BY_TIME, TABLE)
    _create_index(BY_TIME, ["experiment_id", "created_at"])
    _create_index(BY_FEEDBACK, ["experiment_id", "feedback_at"])


def downgrade() -> None:
    op.drop_index(BY_FEEDBACK, TABLE)
    op.drop_index(BY_TIME, TABLE)
    _create_index(BY_TIME, ["experiment_id", "role"])
    op.drop_index(WINDOW, TABLE)
    op.create_index(WINDOW, TABLE, ["workload", "created_at"])
    op.drop_table("trial_rows")


def _create_index(name: str, columns: list[str]) -> None:
    in_one = sa.text("experiment_id IS NOT NULL")
    op.create_index(name, TABLE, columns, sqlite_where=in_one, postgresql_where=in_one)
