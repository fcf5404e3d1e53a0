"""Where an answer came from, and the name of a model that is no version here.

Plain ALTER statements: a batch operation would rebuild the table on SQLite, and dropping the
old one would take all feedback along (ON DELETE CASCADE).
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user_interactions", sa.Column("external_model", sa.String(), nullable=True))
    op.add_column(
        "user_interactions",
        sa.Column("source", sa.String(), server_default="served", nullable=False),
    )


def downgrade() -> None:
    op.drop_column("user_interactions", "source")
    op.drop_column("user_interactions", "external_model")
