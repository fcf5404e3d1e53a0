"""What a correction corrects, disliked answers, and near-duplicate requests.

Plain ALTER statements: no table is copied. Until now the cluster of a sample was its request.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("training_data", sa.Column("rejected_output", sa.Text(), nullable=True))
    op.add_column("training_data", sa.Column("label", sa.Boolean(), nullable=True))
    op.add_column("training_data", sa.Column("request_hash", sa.String(), nullable=True))
    op.execute("UPDATE training_data SET request_hash = cluster_id")
    op.create_index("ix_training_data_request", "training_data", ["workload", "request_hash"])
    op.add_column(
        "curated_signatures", sa.Column("request_signature", sa.LargeBinary(), nullable=True)
    )


def downgrade() -> None:
    op.drop_column("curated_signatures", "request_signature")
    op.drop_index("ix_training_data_request", "training_data")
    op.execute("DELETE FROM training_data WHERE label IS NOT NULL")
    op.execute("UPDATE training_data SET cluster_id = request_hash")
    op.drop_column("training_data", "request_hash")
    op.drop_column("training_data", "label")
    op.drop_column("training_data", "rejected_output")
