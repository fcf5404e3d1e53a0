"""The first schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("previous_digest", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_log")),
    )
    op.create_table(
        "replica_status",
        sa.Column("replica_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("generations", JSON, nullable=False),
        sa.Column("versions", JSON, nullable=False),
        sa.Column("refused", JSON, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("replica_id", name=op.f("pk_replica_status")),
    )
    with op.batch_alter_table("replica_status", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_replica_status_seen_at"), ["seen_at"], unique=False)

    op.create_table(
        "users",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("external_id_encrypted", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_table(
        "workloads",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workloads")),
    )
    op.create_table(
        "curation_runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("watermark", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_curation_runs_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_curation_runs")),
    )
    with op.batch_alter_table("curation_runs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_curation_runs_workload_created", ["workload", "created_at"], unique=False
        )

    op.create_table(
        "datasets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("num_train", sa.Integer(), nullable=False),
        sa.Column("num_validation", sa.Integer(), nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_datasets_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("workload", "digest", name="uq_datasets_digest"),
    )
    op.create_table(
        "production_history",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("challenger", sa.String(), nullable=True),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("to_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_production_history_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_production_history")),
    )
    with op.batch_alter_table("production_history", schema=None) as batch_op:
        batch_op.create_index(
            "ix_production_history_workload", ["workload", "from_at"], unique=False
        )

    op.create_table(
        "trigger_checks",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("fired", sa.Boolean(), nullable=False),
        sa.Column("trigger", sa.String(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("facts", JSON, nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_trigger_checks_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trigger_checks")),
    )
    with op.batch_alter_table("trigger_checks", schema=None) as batch_op:
        batch_op.create_index(
            "ix_trigger_checks_workload_checked", ["workload", "checked_at"], unique=False
        )

    op.create_table(
        "model_versions",
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("base_model", sa.String(), nullable=False),
        sa.Column("parent_version", sa.String(), nullable=True),
        sa.Column("training_dataset_id", sa.String(), nullable=True),
        sa.Column("objective", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("adapter_digest", sa.String(), nullable=False),
        sa.Column("performance_metrics", JSON, nullable=False),
        sa.Column("evaluation", JSON, nullable=False),
        sa.Column("deployment_status", sa.String(), server_default="registered", nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("deployed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_version"],
            ["model_versions.version"],
            name=op.f("fk_model_versions_parent_version"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["training_dataset_id"],
            ["datasets.id"],
            name=op.f("fk_model_versions_training_dataset_id"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_model_versions_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_model_versions")),
    )
    with op.batch_alter_table("model_versions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_model_versions_training_dataset_id"),
            ["training_dataset_id"],
            unique=False,
        )
        batch_op.create_index(
            "ix_versions_workload_created", ["workload", "created_at"], unique=False
        )
        batch_op.create_index(
            "uq_one_challenger",
            ["workload"],
            unique=True,
            sqlite_where=sa.text("deployment_status = 'challenger'"),
            postgresql_where=sa.text("deployment_status = 'challenger'"),
        )
        batch_op.create_index(
            "uq_one_champion",
            ["workload"],
            unique=True,
            sqlite_where=sa.text("deployment_status = 'champion'"),
            postgresql_where=sa.text("deployment_status = 'champion'"),
        )

    op.create_table(
        "experiments",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("champion", sa.String(), nullable=True),
        sa.Column("challenger", sa.String(), nullable=True),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'promoted', 'rolled_back', 'retired')",
            name=op.f("ck_experiments_status_known"),
        ),
        sa.CheckConstraint("share >= 0 AND share <= 1", name=op.f("ck_experiments_share_range")),
        sa.ForeignKeyConstraint(
            ["challenger"],
            ["model_versions.version"],
            name=op.f("fk_experiments_challenger"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["champion"],
            ["model_versions.version"],
            name=op.f("fk_experiments_champion"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_experiments_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiments")),
    )
    with op.batch_alter_table("experiments", schema=None) as batch_op:
        batch_op.create_index(
            "uq_one_running_experiment",
            ["workload"],
            unique=True,
            sqlite_where=sa.text("status = 'running'"),
            postgresql_where=sa.text("status = 'running'"),
        )

    op.create_table(
        "retrain_runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("flow_run_id", sa.String(), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=True),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('running', 'succeeded', 'rejected', 'refused', 'failed')",
            name=op.f("ck_retrain_runs_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_retrain_runs_dataset_id"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["version"],
            ["model_versions.version"],
            name=op.f("fk_retrain_runs_version"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_retrain_runs_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrain_runs")),
    )
    with op.batch_alter_table("retrain_runs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_retrain_runs_workload_started", ["workload", "started_at"], unique=False
        )
        batch_op.create_index(
            "uq_one_running_retrain",
            ["workload"],
            unique=True,
            sqlite_where=sa.text("status = 'running'"),
            postgresql_where=sa.text("status = 'running'"),
        )

    op.create_table(
        "deployment_state",
        sa.Column("workload", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("champion", sa.String(), nullable=True),
        sa.Column("challenger", sa.String(), nullable=True),
        sa.Column("previous", sa.String(), nullable=True),
        sa.Column("experiment_id", sa.String(), nullable=True),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "share >= 0 AND share <= 1", name=op.f("ck_deployment_state_share_range")
        ),
        sa.ForeignKeyConstraint(
            ["challenger"],
            ["model_versions.version"],
            name=op.f("fk_deployment_state_challenger"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["champion"],
            ["model_versions.version"],
            name=op.f("fk_deployment_state_champion"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_deployment_state_experiment_id"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["previous"],
            ["model_versions.version"],
            name=op.f("fk_deployment_state_previous"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_deployment_state_workload"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("workload", name=op.f("pk_deployment_state")),
    )
    op.create_table(
        "experiment_decisions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("experiment_id", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("facts", JSON, nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_experiment_decisions_experiment_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiment_decisions")),
    )
    with op.batch_alter_table("experiment_decisions", schema=None) as batch_op:
        batch_op.create_index(
            "ix_decisions_experiment", ["experiment_id", "decided_at"], unique=False
        )

    op.create_table(
        "user_interactions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("session_id", sa.String(), nullable=True),
        sa.Column("input_text", sa.Text(), nullable=False),
        sa.Column("messages", JSON, nullable=True),
        sa.Column("structured_prompt", sa.Text(), nullable=False),
        sa.Column("model_output", sa.Text(), nullable=False),
        sa.Column("tokens_input", sa.Integer(), nullable=True),
        sa.Column("tokens_output", sa.Integer(), nullable=True),
        sa.Column("tokens_total", sa.Integer(), nullable=True),
        sa.Column("processing_time_ms", sa.Float(), nullable=True),
        sa.Column("queue_ms", sa.Float(), nullable=True),
        sa.Column("model_version", sa.String(), nullable=True),
        sa.Column("role", sa.String(), server_default="default", nullable=False),
        sa.Column("experiment_id", sa.String(), nullable=True),
        sa.Column("target_tool", sa.String(), nullable=True),
        sa.Column("language", sa.String(), nullable=True),
        sa.Column("quality_score", sa.Float(), nullable=True),
        sa.Column("scorer_version", sa.String(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("feedback_score", sa.Integer(), nullable=True),
        sa.Column("user_feedback", sa.Integer(), nullable=True),
        sa.Column("feedback_text", sa.Text(), nullable=True),
        sa.Column("corrected_output", sa.Text(), nullable=True),
        sa.Column("feedback_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "role IN ('default', 'champion', 'challenger', 'shadow')",
            name=op.f("ck_user_interactions_role_known"),
        ),
        sa.CheckConstraint(
            "feedback_score BETWEEN 1 AND 5", name=op.f("ck_user_interactions_feedback_score_range")
        ),
        sa.CheckConstraint(
            "user_feedback IN (-1, 0, 1)", name=op.f("ck_user_interactions_user_feedback_range")
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiments.id"],
            name=op.f("fk_user_interactions_experiment_id"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["model_version"],
            ["model_versions.version"],
            name=op.f("fk_user_interactions_model_version"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_user_interactions_user_id"),
            onupdate="CASCADE",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_user_interactions_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_interactions")),
    )
    with op.batch_alter_table("user_interactions", schema=None) as batch_op:
        batch_op.create_index("ix_interactions_experiment", ["experiment_id", "role"], unique=False)
        batch_op.create_index(
            "ix_interactions_user_created", ["user_id", "created_at"], unique=False
        )
        batch_op.create_index(
            "ix_interactions_workload_created", ["workload", "created_at"], unique=False
        )
        batch_op.create_index(
            "ix_interactions_workload_feedback", ["workload", "feedback_at"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_user_interactions_model_version"), ["model_version"], unique=False
        )

    op.create_table(
        "client_metadata",
        sa.Column("interaction_id", sa.String(), nullable=False),
        sa.Column("ip_address_encrypted", sa.Text(), nullable=True),
        sa.Column("user_agent_encrypted", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["interaction_id"],
            ["user_interactions.id"],
            name=op.f("fk_client_metadata_interaction_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("interaction_id", name=op.f("pk_client_metadata")),
    )
    with op.batch_alter_table("client_metadata", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_client_metadata_created_at"), ["created_at"], unique=False
        )

    op.create_table(
        "feedback_events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("interaction_id", sa.String(), nullable=False),
        sa.Column("score", sa.Integer(), nullable=True),
        sa.Column("thumb", sa.Integer(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("corrected_output", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["interaction_id"],
            ["user_interactions.id"],
            name=op.f("fk_feedback_events_interaction_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback_events")),
    )
    with op.batch_alter_table("feedback_events", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_feedback_events_interaction_id"), ["interaction_id"], unique=False
        )

    op.create_table(
        "training_data",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workload", sa.String(), server_default="default", nullable=False),
        sa.Column("source_interaction_id", sa.String(), nullable=False),
        sa.Column("input_prompt", sa.Text(), nullable=False),
        sa.Column("target_output", sa.Text(), nullable=False),
        sa.Column("messages", JSON, nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("quality_score", sa.Float(), nullable=True),
        sa.Column("domain_category", sa.String(), nullable=True),
        sa.Column("use_case", sa.String(), nullable=True),
        sa.Column("language", sa.String(), nullable=True),
        sa.Column("content_hash", sa.String(), nullable=False),
        sa.Column("cluster_id", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("is_curated", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("is_selected", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("rejection_reason", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "source IN ('accepted', 'corrected')", name=op.f("ck_training_data_source_known")
        ),
        sa.CheckConstraint(
            "split IN ('train', 'validation')", name=op.f("ck_training_data_split_known")
        ),
        sa.ForeignKeyConstraint(
            ["source_interaction_id"],
            ["user_interactions.id"],
            name=op.f("fk_training_data_source_interaction_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workload"],
            ["workloads.name"],
            name=op.f("fk_training_data_workload"),
            onupdate="CASCADE",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_data")),
        sa.UniqueConstraint("workload", "content_hash", name="uq_training_data_content"),
    )
    with op.batch_alter_table("training_data", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_training_data_source_interaction_id"),
            ["source_interaction_id"],
            unique=False,
        )
        batch_op.create_index(
            "ix_training_data_workload_created", ["workload", "created_at"], unique=False
        )

    op.create_table(
        "dataset_items",
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("training_data_id", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.id"],
            name=op.f("fk_dataset_items_dataset_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["training_data_id"],
            ["training_data.id"],
            name=op.f("fk_dataset_items_training_data_id"),
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("dataset_id", "training_data_id", name=op.f("pk_dataset_items")),
    )
    with op.batch_alter_table("dataset_items", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_dataset_items_training_data_id"), ["training_data_id"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("dataset_items", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_dataset_items_training_data_id"))

    op.drop_table("dataset_items")
    with op.batch_alter_table("training_data", schema=None) as batch_op:
        batch_op.drop_index("ix_training_data_workload_created")
        batch_op.drop_index(batch_op.f("ix_training_data_source_interaction_id"))

    op.drop_table("training_data")
    with op.batch_alter_table("feedback_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_feedback_events_interaction_id"))

    op.drop_table("feedback_events")
    with op.batch_alter_table("client_metadata", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_client_metadata_created_at"))

    op.drop_table("client_metadata")
    with op.batch_alter_table("user_interactions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_user_interactions_model_version"))
        batch_op.drop_index("ix_interactions_workload_feedback")
        batch_op.drop_index("ix_interactions_workload_created")
        batch_op.drop_index("ix_interactions_user_created")
        batch_op.drop_index("ix_interactions_experiment")

    op.drop_table("user_interactions")
    with op.batch_alter_table("experiment_decisions", schema=None) as batch_op:
        batch_op.drop_index("ix_decisions_experiment")

    op.drop_table("experiment_decisions")
    op.drop_table("deployment_state")
    with op.batch_alter_table("retrain_runs", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_one_running_retrain",
            sqlite_where=sa.text("status = 'running'"),
            postgresql_where=sa.text("status = 'running'"),
        )
        batch_op.drop_index("ix_retrain_runs_workload_started")

    op.drop_table("retrain_runs")
    with op.batch_alter_table("experiments", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_one_running_experiment",
            sqlite_where=sa.text("status = 'running'"),
            postgresql_where=sa.text("status = 'running'"),
        )

    op.drop_table("experiments")
    with op.batch_alter_table("model_versions", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_one_champion",
            sqlite_where=sa.text("deployment_status = 'champion'"),
            postgresql_where=sa.text("deployment_status = 'champion'"),
        )
        batch_op.drop_index(
            "uq_one_challenger",
            sqlite_where=sa.text("deployment_status = 'challenger'"),
            postgresql_where=sa.text("deployment_status = 'challenger'"),
        )
        batch_op.drop_index("ix_versions_workload_created")
        batch_op.drop_index(batch_op.f("ix_model_versions_training_dataset_id"))

    op.drop_table("model_versions")
    with op.batch_alter_table("trigger_checks", schema=None) as batch_op:
        batch_op.drop_index("ix_trigger_checks_workload_checked")

    op.drop_table("trigger_checks")
    with op.batch_alter_table("production_history", schema=None) as batch_op:
        batch_op.drop_index("ix_production_history_workload")

    op.drop_table("production_history")
    op.drop_table("datasets")
    with op.batch_alter_table("curation_runs", schema=None) as batch_op:
        batch_op.drop_index("ix_curation_runs_workload_created")

    op.drop_table("curation_runs")
    op.drop_table("workloads")
    op.drop_table("users")
    with op.batch_alter_table("replica_status", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_replica_status_seen_at"))

    op.drop_table("replica_status")
    op.drop_table("audit_log")
