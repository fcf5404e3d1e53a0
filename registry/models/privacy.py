"""Keys in use, erasures and what they touched, and totals of what is no longer kept."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index
from sqlmodel import Field, SQLModel

from registry.models.columns import json_column, moment, reference, text_column, workload_column


class EncryptionKey(SQLModel, table=True):
    """A key that this database was written with: without it, no program starts on it."""

    __tablename__ = "encryption_keys"
    __table_args__ = (CheckConstraint("kind IN ('master', 'fields')", name="kind_known"),)

    kind: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    created_at: datetime = moment()
    retired_at: datetime | None = moment(nullable=True)


class Actor(SQLModel, table=True):
    """Somebody who acts over the API; `id` is the keyed hash that stands for them elsewhere."""

    __tablename__ = "actors"

    id: str = Field(primary_key=True)
    name_encrypted: str = text_column()
    created_at: datetime = moment()


class Erasure(SQLModel, table=True):
    """That somebody was erased, not who: `subject` is a keyed hash made for this alone.

    It keeps what was asked before `requested_at` from coming back. While the erasure is
    under way, `user_id` (the pseudonym) and `external_id_encrypted` say whom it is about.
    """

    __tablename__ = "erasures"

    id: str = Field(primary_key=True)
    subject: str = Field(index=True)
    user_id: str | None = Field(default=None)
    external_id_encrypted: str | None = text_column(nullable=True)
    requested_by: str = Field()
    approved_by: str = Field()
    policy: str = Field()
    requested_at: datetime = moment()
    completed_at: datetime | None = moment(nullable=True)
    scrubbed_at: datetime | None = moment(nullable=True)
    """When nothing was left in the database's free space either."""
    counts: Any = json_column()
    report: Any = json_column(nullable=True)


class ErasureEffect(SQLModel, table=True):
    """A dataset that held erased data, or a version that learned from it."""

    __tablename__ = "erasure_effects"
    __table_args__ = (Index("ix_erasure_effects_kind_name", "kind", "name"),)

    erasure_id: str = reference("erasures.id", ondelete="CASCADE", primary_key=True)
    kind: str = Field(primary_key=True)
    """dataset or version."""
    name: str = Field(primary_key=True)
    workload: str = workload_column()
    action: str = Field()
    """deleted (files of a dataset); listed, retired or retrain (a version)."""
    done_at: datetime | None = moment(nullable=True)


class RetainedUsage(SQLModel, table=True):
    """Totals of interactions that retention has deleted: no person, no text."""

    __tablename__ = "retained_usage"

    workload: str = reference("workloads.name", ondelete="CASCADE", primary_key=True)
    day: str = Field(primary_key=True)
    """In UTC, as 2026-01-14."""
    model: str = Field(primary_key=True)
    """Version, or another system's model; "base" where the base model answered."""
    role: str = Field(primary_key=True)
    total: int = Field(default=0)
    rated: int = Field(default=0)
    positive: int = Field(default=0)
    negative: int = Field(default=0)
    errors: int = Field(default=0)
    tokens_input: int = Field(default=0, sa_type=BigInteger)
    tokens_output: int = Field(default=0, sa_type=BigInteger)
    processing_time_ms: float = Field(default=0.0)
