"""Keys in use, consent, erasures and their effects, and totals of what is no longer kept.

Plain ALTER statements: see 0004.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
ADDED = (
    ("users", "consent_at"),
    ("datasets", "files_deleted_at"),
    ("model_versions", "adapter_deleted_at"),
)
"""Moments, all nullable."""


def upgrade() -> None:
    for table, name in ADDED:
        op.add_column(table, sa.Column(name, MOMENT, nullable=True))
    op.add_column(
        "users", sa.Column("consent", sa.String(), server_default="granted", nullable=False)
    )
    op.add_column("idempotency_keys", sa.Column("user_id", sa.String(), nullable=True))
    op.create_index("ix_idempotency_keys_user_id", "idempotency_keys", ["user_id"])
    op.create_index("ix_users_created_at", "users", ["created_at"])
    refusing = sa.text("consent <> 'granted'")
    op.create_index(
        "ix_users_refusing", "users", ["id"], sqlite_where=refusing, postgresql_where=refusing
    )
    op.create_table(
        "encryption_keys",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("retired_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "kind IN ('master', 'fields')", name=op.f("ck_encryption_keys_kind_known")
        ),
        sa.PrimaryKeyConstraint("kind", "id", name=op.f("pk_encryption_keys")),
    )
    _create_erasures()
    op.create_table(
        "retained_usage",
        sa.Column("workload", sa.String(), nullable=False),
        sa.Column("day", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in (
                "total",
                "rated",
                "positive",
                "negative",
                "errors",
                "tokens_input",
                "tokens_output",
            )
        ),
        sa.Column("processing_time_ms", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_retained_usage_workload"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workload", "day", "model", "role", name=op.f("pk_retained_usage")),
    )


def downgrade() -> None:
    for table in ("retained_usage", "erasure_effects", "erasures", "encryption_keys"):
        op.drop_table(table)
    op.drop_index("ix_users_refusing", "users")
    op.drop_index("ix_users_created_at", "users")
    op.drop_index("ix_idempotency_keys_user_id", "idempotency_keys")
    op.drop_column("idempotency_keys", "user_id")
    op.drop_column("users", "consent")
    for table, name in ADDED:
        op.drop_column(table, name)


def _create_erasures() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("external_id_encrypted", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("approved_by", sa.String(), nullable=False),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("requested_at", MOMENT, nullable=False),
        sa.Column("completed_at", MOMENT, nullable=True),
        sa.Column("scrubbed_at", MOMENT, nullable=True),
        sa.Column("counts", json, nullable=False),
        sa.Column("report", json, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_index("ix_erasures_subject", "erasures", ["subject"])
    op.create_table(
        "erasure_effects",
        sa.Column("erasure_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("done_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["erasure_id"],
            ["erasures.id"],
            name=op.f("fk_erasure_effects_erasure_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_erasure_effects_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("erasure_id", "kind", "name", name=op.f("pk_erasure_effects")),
    )
    op.create_index("ix_erasure_effects_kind_name", "erasure_effects", ["kind", "name"])
