"""A head that nothing has sealed yet is sealed by the next program that lists its keys."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The programs of before listed their keys and left the head alone until the first entry.
    op.execute(
        "DELETE FROM encryption_keys WHERE EXISTS (SELECT 1 FROM audit_head WHERE seal IS NULL)"
    )


def downgrade() -> None:
    """Nothing was lost: the next program lists its keys."""
