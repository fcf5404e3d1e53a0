"""Nothing looks samples up by their cluster any more, and every new one paid for the index."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INDEX, TABLE = "ix_training_data_cluster", "training_data"


def upgrade() -> None:
    op.drop_index(INDEX, TABLE)


def downgrade() -> None:
    op.create_index(INDEX, TABLE, ["workload", "cluster_id"])
