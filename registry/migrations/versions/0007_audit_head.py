"""Where the audit chain ends, which key sealed an entry, and what opened a production period."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

GENESIS = "0" * 64


def upgrade() -> None:
    op.add_column("audit_log", sa.Column("key_id", sa.String(), nullable=True))
    op.add_column("production_history", sa.Column("action", sa.String(), nullable=True))
    op.add_column("production_history", sa.Column("experiment_id", sa.String(), nullable=True))
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("seal", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    # The chain goes on where it stands; its head is sealed by the next program that has the keys.
    last = "SELECT digest FROM audit_log ORDER BY sequence DESC LIMIT 1"
    op.execute(
        "INSERT INTO audit_head (id, sequence, digest) "
        f"SELECT 1, COALESCE(MAX(sequence), 0), COALESCE(({last}), '{GENESIS}') FROM audit_log"
    )


def downgrade() -> None:
    op.drop_table("audit_head")
    op.drop_column("production_history", "experiment_id")
    op.drop_column("production_history", "action")
    op.drop_column("audit_log", "key_id")
