"""Experiments that run in the shadow, hold back after a promotion, or are frozen.

Plain ALTER statements: no table is copied.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "experiments", sa.Column("kind", sa.String(), server_default="trial", nullable=False)
    )
    op.add_column(
        "experiments",
        sa.Column("frozen", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column(
        "deployment_state", sa.Column("mode", sa.String(), server_default="trial", nullable=False)
    )


def downgrade() -> None:
    op.drop_column("deployment_state", "mode")
    op.drop_column("experiments", "frozen")
    op.drop_column("experiments", "kind")
