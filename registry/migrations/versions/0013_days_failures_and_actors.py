"""What each day looked like, kept when its rows go; who acted, apart from what they did.

And failures are found without reading the rest.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INDEX = "ix_interactions_failed"


def upgrade() -> None:
    json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    op.create_table(
        "usage_days",
        sa.Column("workload", sa.String(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("quality", json, nullable=False),
        sa.Column("prompts", json, nullable=False),
        sa.PrimaryKeyConstraint("workload", "day", name="pk_usage_days"),
    )
    op.create_table(
        "actors",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name_encrypted", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_actors"),
    )
    is_failed = sa.text("error IS NOT NULL")
    op.create_index(
        INDEX,
        "user_interactions",
        ["workload", "created_at"],
        sqlite_where=is_failed,
        postgresql_where=is_failed,
    )


def downgrade() -> None:
    op.drop_index(INDEX, "user_interactions")
    op.drop_table("actors")
    op.drop_table("usage_days")
