"""Several challengers on trial at once.

Plain statements: no table is copied.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), "postgresql"
)
CHALLENGER = sa.text("deployment_status = 'challenger'")


def upgrade() -> None:
    op.create_table(
        "experiment_arms",
        sa.Column("experiment_id", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), server_default="running", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'promoted', 'rolled_back', 'retired')",
            name=op.f("ck_experiment_arms_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_experiment_arms_experiment_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["version"],
            ["model_versions.version"],
            name=op.f("fk_experiment_arms_version"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("experiment_id", "version", name=op.f("pk_experiment_arms")),
    )
    op.add_column("experiment_decisions", sa.Column("version", sa.String(), nullable=True))
    op.add_column("production_history", sa.Column("rivals", JSON, nullable=True))
    op.drop_index("uq_one_challenger", table_name="model_versions")


def downgrade() -> None:
    # The older schema knows one challenger for each workload: the first of a trial.
    op.execute(
        "UPDATE model_versions SET deployment_status = 'retired' "
        "WHERE deployment_status = 'challenger' AND version NOT IN "
        "(SELECT challenger FROM deployment_state WHERE challenger IS NOT NULL)"
    )
    op.create_index(
        "uq_one_challenger",
        "model_versions",
        ["workload"],
        unique=True,
        sqlite_where=CHALLENGER,
        postgresql_where=CHALLENGER,
    )
    op.drop_column("production_history", "rivals")
    op.drop_column("experiment_decisions", "version")
    op.drop_table("experiment_arms")
