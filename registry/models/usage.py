"""What people ask, what they are answered, and what they say of it."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index
from sqlalchemy import text as sql_text
from sqlmodel import Field, SQLModel

from registry.models.columns import (
    json_column,
    moment,
    reference,
    text_column,
    workload_column,
)


class Workload(SQLModel, table=True):
    """One task served by this installation, with its own data, versions and experiments."""

    __tablename__ = "workloads"

    name: str = Field(primary_key=True)
    created_at: datetime = moment()


class User(SQLModel, table=True):
    """A person, known by pseudonym; `id` is the keyed hash of the caller's own id."""

    __tablename__ = "users"
    # Few refuse, and every count of new samples asks for them.
    __table_args__ = (
        Index(
            "ix_users_refusing",
            "id",
            sqlite_where=sql_text("consent <> 'granted'"),
            postgresql_where=sql_text("consent <> 'granted'"),
        ),
    )

    id: str = Field(primary_key=True)
    external_id_encrypted: str | None = text_column(nullable=True)
    consent: str = Field(default="granted", sa_column_kwargs={"server_default": "granted"})
    """granted; no_training: kept, never learned from; no_content: no text is kept."""
    consent_at: datetime | None = moment(nullable=True)
    created_at: datetime = moment(index=True)


def _where_set(name: str, *columns: str, column: str) -> Index:
    """An index of the rows in which `column` is set: to write down the others costs no more."""
    condition = sql_text(f"{column} IS NOT NULL")
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


class UserInteraction(SQLModel, table=True):
    """One request with its answer, and the latest feedback on it.

    `source` tells who answered: "served" here, or something else whose answer was "logged"
    over HTTP or "imported" from a file; `external_model` is then that model's name, which no
    version here has. `model_version` is null there, and where the base model answered
    (`role` is then "default").
    Times are milliseconds; `queue_ms` is the wait before generation began, which
    `processing_time_ms` does not contain.
    """

    __tablename__ = "user_interactions"
    __table_args__ = (
        CheckConstraint("feedback_score BETWEEN 1 AND 5", name="feedback_score_range"),
        CheckConstraint("user_feedback IN (-1, 0, 1)", name="user_feedback_range"),
        CheckConstraint(
            "role IN ('default', 'champion', 'challenger', 'shadow')", name="role_known"
        ),
        # Tells alone how good a window was, and for whom (registry/monitoring.py).
        Index(
            "ix_interactions_workload_created",
            "workload",
            "created_at",
            "role",
            "quality_score",
            "scorer_version",
            "user_id",
            "session_id",
        ),
        _where_set("ix_interactions_user_created", "user_id", "created_at", column="user_id"),
        _where_set(
            "ix_interactions_experiment", "experiment_id", "created_at", column="experiment_id"
        ),
        # Counts alone what has come, and what people said (registry/trial_rows.py).
        _where_set(
            "ix_interactions_experiment_feedback",
            "experiment_id",
            "feedback_at",
            column="experiment_id",
        ),
        _where_set("ix_user_interactions_model_version", "model_version", column="model_version"),
        _where_set(
            "ix_interactions_workload_feedback", "workload", "feedback_at", column="feedback_at"
        ),
        _where_set("ix_interactions_failed", "workload", "created_at", column="error"),
        # Tells alone how many of them curation would accept (registry/statistics.py).
        _where_set(
            "ix_interactions_rated",
            "workload",
            "rated_kind",
            "user_feedback",
            "feedback_at",
            "quality_score",
            column="rated_kind",
        ),
    )

    id: str = Field(primary_key=True)
    workload: str = workload_column()
    user_id: str | None = reference("users.id", ondelete="SET NULL", nullable=True)
    session_id: str | None = Field(default=None)
    input_text: str = text_column()
    messages: Any = json_column(nullable=True)
    structured_prompt: str = text_column()
    model_output: str = text_column()
    tokens_input: int | None = Field(default=None)
    tokens_output: int | None = Field(default=None)
    tokens_total: int | None = Field(default=None)
    processing_time_ms: float | None = Field(default=None)
    queue_ms: float | None = Field(default=None)
    model_version: str | None = reference(
        "model_versions.version", ondelete="SET NULL", nullable=True
    )
    external_model: str | None = Field(default=None)
    source: str = Field(default="served", sa_column_kwargs={"server_default": "served"})
    role: str = Field(default="default", sa_column_kwargs={"server_default": "default"})
    experiment_id: str | None = reference("experiments.id", ondelete="SET NULL", nullable=True)
    target_tool: str | None = Field(default=None)
    language: str | None = Field(default=None)
    quality_score: float | None = Field(default=None)
    scorer_version: str | None = Field(default=None)
    error: str | None = text_column(nullable=True)
    feedback_score: int | None = Field(default=None)
    user_feedback: int | None = Field(default=None)
    feedback_text: str | None = text_column(nullable=True)
    corrected_output: str | None = text_column(nullable=True)
    feedback_at: datetime | None = moment(nullable=True)
    rated_kind: str | None = Field(default=None)
    """Of what has feedback: "corrected", else "chat" or "prompt"; set with `feedback_at`."""
    created_at: datetime = moment()
    updated_at: datetime = moment()


class FeedbackEvent(SQLModel, table=True):
    """One piece of feedback as it came in; `user_interactions` shows the latest.

    `rater_id` is the pseudonym of whoever gave it; null: whoever asked. `is_review` tells that
    it is a reviewer's.
    """

    __tablename__ = "feedback_events"

    id: str = Field(primary_key=True)
    interaction_id: str = reference("user_interactions.id", ondelete="CASCADE", index=True)
    score: int | None = Field(default=None)
    thumb: int | None = Field(default=None)
    text: str | None = text_column(nullable=True)
    corrected_output: str | None = text_column(nullable=True)
    rater_id: str | None = Field(default=None)
    is_review: bool = Field(default=False, sa_column_kwargs={"server_default": sql_text("false")})
    created_at: datetime = moment()


class ClientMetadata(SQLModel, table=True):
    """Where a request came from: encrypted, apart from its content, kept for a shorter time."""

    __tablename__ = "client_metadata"

    interaction_id: str = reference("user_interactions.id", ondelete="CASCADE", primary_key=True)
    ip_address_encrypted: str | None = text_column(nullable=True)
    user_agent_encrypted: str | None = text_column(nullable=True)
    created_at: datetime = moment(index=True)
