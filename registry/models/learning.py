"""What is learned from: curated samples, immutable datasets, and the versions made of them."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from registry.models.columns import (
    json_column,
    moment,
    reference,
    text_column,
    workload_column,
)


class TrainingData(SQLModel, table=True):
    """One curated sample, from exactly one interaction."""

    __tablename__ = "training_data"
    __table_args__ = (
        UniqueConstraint("workload", "content_hash", name="uq_training_data_content"),
        CheckConstraint("split IN ('train', 'validation', 'test')", name="split_known"),
        CheckConstraint("source IN ('accepted', 'corrected')", name="source_known"),
        Index("ix_training_data_workload_created", "workload", "created_at"),
        Index("ix_training_data_reservoir", "workload", "domain_category", "reservoir_key"),
        Index("ix_training_data_request", "workload", "request_hash"),
    )

    id: str = Field(primary_key=True)
    workload: str = workload_column()
    source_interaction_id: str = reference("user_interactions.id", ondelete="CASCADE", index=True)
    input_prompt: str = text_column()
    target_output: str = text_column()
    rejected_output: str | None = text_column(nullable=True)
    """Of a correction: the answer that it corrects."""
    label: bool | None = Field(default=None)
    """False: people disliked the answer, and only preference objectives learn from it."""
    messages: Any = json_column(nullable=True)
    source: str = Field(default="accepted")
    quality_score: float | None = Field(default=None)
    domain_category: str | None = Field(default=None)
    use_case: str | None = Field(default=None)
    template_id: str | None = Field(default=None)
    reservoir_key: float | None = Field(default=None)
    language: str | None = Field(default=None)
    content_hash: str = Field()
    request_hash: str | None = Field(default=None)
    """The request alone; equal requests have equal hashes."""
    cluster_id: str = Field()
    """The near-duplicates it stands on one side with: the request of the oldest of them."""
    split: str = Field()
    is_curated: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    is_selected: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    rejection_reason: str | None = Field(default=None)
    created_at: datetime = moment()


class Dataset(SQLModel, table=True):
    """An immutable set of samples, named by the digest of its files."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("workload", "digest", name="uq_datasets_digest"),)

    id: str = Field(primary_key=True)
    workload: str = workload_column()
    digest: str = Field()
    num_train: int = Field()
    num_validation: int = Field()
    settings: Any = json_column()
    counts: Any = json_column()
    files_deleted_at: datetime | None = moment(nullable=True)
    """Since then only this row tells of it."""
    created_at: datetime = moment()


class DatasetItem(SQLModel, table=True):
    """Which sample is in which dataset."""

    __tablename__ = "dataset_items"

    dataset_id: str = reference("datasets.id", ondelete="CASCADE", primary_key=True)
    training_data_id: str = reference(
        "training_data.id", ondelete="CASCADE", primary_key=True, index=True
    )
    split: str = Field()


class ModelVersion(SQLModel, table=True):
    """A base model plus one adapter, and where it stands in its lifecycle."""

    __tablename__ = "model_versions"
    __table_args__ = (
        Index(
            "uq_one_champion",
            "workload",
            unique=True,
            sqlite_where=text("deployment_status = 'champion'"),
            postgresql_where=text("deployment_status = 'champion'"),
        ),
        Index("ix_versions_workload_created", "workload", "created_at"),
    )

    version: str = Field(primary_key=True)
    workload: str = workload_column()
    base_model: str = Field()
    parent_version: str | None = reference(
        "model_versions.version", ondelete="SET NULL", nullable=True
    )
    training_dataset_id: str | None = reference(
        "datasets.id", ondelete="RESTRICT", nullable=True, index=True
    )
    objective: str = Field(default="sft")
    recipe: str = Field()
    adapter_digest: str = Field()
    performance_metrics: Any = json_column()
    evaluation: Any = json_column()
    deployment_status: str = Field(
        default="registered", sa_column_kwargs={"server_default": "registered"}
    )
    status_reason: str | None = text_column(nullable=True)
    deployed_at: datetime | None = moment(nullable=True)
    adapter_deleted_at: datetime | None = moment(nullable=True)
    """Since then it cannot serve again."""
    created_at: datetime = moment()


class CurationRun(SQLModel, table=True):
    """One pass of curation: what it read, up to where, and what became of every row."""

    __tablename__ = "curation_runs"
    __table_args__ = (Index("ix_curation_runs_workload_created", "workload", "created_at"),)

    id: str = Field(primary_key=True)
    workload: str = workload_column()
    watermark: datetime = moment()
    counts: Any = json_column()
    settings: Any = json_column()
    created_at: datetime = moment()


class RetrainRun(SQLModel, table=True):
    """One attempt to train; the database allows one running attempt per workload."""

    __tablename__ = "retrain_runs"
    __table_args__ = (
        Index(
            "uq_one_running_retrain",
            "workload",
            unique=True,
            sqlite_where=text("status = 'running'"),
            postgresql_where=text("status = 'running'"),
        ),
        CheckConstraint(
            "status IN ('running', 'succeeded', 'rejected', 'refused', 'failed')",
            name="status_known",
        ),
        Index("ix_retrain_runs_workload_started", "workload", "started_at"),
    )

    id: str = Field(primary_key=True)
    workload: str = workload_column()
    trigger: str = Field()
    status: str = Field(default="running")
    reason: str | None = text_column(nullable=True)
    flow_run_id: str | None = Field(default=None)
    heartbeat_at: datetime = moment()
    dataset_id: str | None = reference("datasets.id", ondelete="SET NULL", nullable=True)
    version: str | None = reference("model_versions.version", ondelete="SET NULL", nullable=True)
    started_at: datetime = moment()
    ended_at: datetime | None = moment(nullable=True)


class TriggerCheck(SQLModel, table=True):
    """One look at the retraining triggers, with the numbers it saw."""

    __tablename__ = "trigger_checks"
    __table_args__ = (Index("ix_trigger_checks_workload_checked", "workload", "checked_at"),)

    id: str = Field(primary_key=True)
    workload: str = workload_column()
    fired: bool = Field()
    trigger: str | None = Field(default=None)
    reason: str = text_column()
    facts: Any = json_column()
    checked_at: datetime = moment()
