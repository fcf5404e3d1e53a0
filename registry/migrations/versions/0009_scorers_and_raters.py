"""Fitted quality scorers, and who gave a piece of feedback.

Plain ALTER statements, as a batch operation would rebuild the table on SQLite.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), "postgresql"
)


def upgrade() -> None:
    op.add_column("feedback_events", sa.Column("rater_id", sa.String(), nullable=True))
    op.add_column(
        "feedback_events",
        sa.Column("is_review", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    _create_scorers()


def downgrade() -> None:
    op.drop_table("quality_scorers")
    op.drop_column("feedback_events", "is_review")
    op.drop_column("feedback_events", "rater_id")


def _create_scorers() -> None:
    op.create_table(
        "quality_scorers",
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("metrics", JSON, nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_quality_scorers_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_quality_scorers")),
    )
    op.create_index(
        "uq_one_active_scorer",
        "quality_scorers",
        ["workload"],
        unique=True,
        sqlite_where=sa.text("is_active"),
        postgresql_where=sa.text("is_active"),
    )
    op.create_index(
        "ix_quality_scorers_workload_created", "quality_scorers", ["workload", "created_at"]
    )
