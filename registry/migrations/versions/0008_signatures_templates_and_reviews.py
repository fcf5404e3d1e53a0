"""Signatures of curated samples, their templates, a test split, and a queue for reviewers.

The check on `split` can only change on SQLite by rebuilding `training_data`, and dropping the
old table would take the items of all datasets along (ON DELETE CASCADE): they are set aside and
put back.
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _change_splits("split IN ('train', 'validation', 'test')", _added)
    op.create_index("ix_training_data_cluster", "training_data", ["workload", "cluster_id"])
    op.create_index(
        "ix_training_data_reservoir",
        "training_data",
        ["workload", "domain_category", "reservoir_key"],
    )
    _create_signatures()
    _create_review_items()


def downgrade() -> None:
    op.drop_table("review_items")
    op.drop_table("curated_signatures")
    op.drop_index("ix_training_data_reservoir", "training_data")
    op.drop_index("ix_training_data_cluster", "training_data")
    op.execute("UPDATE training_data SET split = 'validation' WHERE split = 'test'")
    _change_splits("split IN ('train', 'validation')", _removed)


def _added(batch: BatchOperations) -> None:
    batch.add_column(sa.Column("template_id", sa.String(), nullable=True))
    batch.add_column(sa.Column("reservoir_key", sa.Float(), nullable=True))


def _removed(batch: BatchOperations) -> None:
    batch.drop_column("reservoir_key")
    batch.drop_column("template_id")


def _change_splits(condition: str, change: Callable[[BatchOperations], None]) -> None:
    op.execute("CREATE TABLE kept_items AS SELECT * FROM dataset_items")
    with op.batch_alter_table("training_data", schema=None) as batch:
        batch.drop_constraint(op.f("ck_training_data_split_known"), type_="check")
        batch.create_check_constraint(op.f("ck_training_data_split_known"), condition)
        change(batch)
    op.execute("DELETE FROM dataset_items")
    op.execute("INSERT INTO dataset_items SELECT * FROM kept_items")
    op.execute("DROP TABLE kept_items")


def _create_signatures() -> None:
    op.create_table(
        "curated_signatures",
        sa.Column("training_data_id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["training_data_id"],
            ["training_data.id"],
            name=op.f("fk_curated_signatures_training_data_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_curated_signatures_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("training_data_id", name=op.f("pk_curated_signatures")),
    )


def _create_review_items() -> None:
    op.create_table(
        "review_items",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("interaction_id", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="pending", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.String(), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'accepted', 'rejected')",
            name=op.f("ck_review_items_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_review_items_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["interaction_id"],
            ["user_interactions.id"],
            name=op.f("fk_review_items_interaction_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_items")),
    )
    op.create_index("ix_review_items_interaction_id", "review_items", ["interaction_id"])
    op.create_index(
        "ix_review_items_workload_state", "review_items", ["workload", "state", "created_at"]
    )
