"""What is in production: experiments, desired and observed state, history."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field, SQLModel

from registry.models.columns import (
    json_column,
    moment,
    reference,
    text_column,
    workload_column,
)


class Experiment(SQLModel, table=True):
    """The trial of a challenger. `champion` is null where the base model is the control.

    `kind` "holdback": what follows a promotion. `champion` is then the version that was
    promoted, and `challenger` the one before it, which some people keep (null: the base model).
    "itself": `challenger` is a copy of the champion, to see that nothing is found.
    `frozen`: nothing is decided but by a guardrail.
    """

    __tablename__ = "experiments"
    __table_args__ = (
        Index(
            "uq_one_running_experiment",
            "workload",
            unique=True,
            sqlite_where=text("status = 'running'"),
            postgresql_where=text("status = 'running'"),
        ),
        CheckConstraint(
            "status IN ('running', 'promoted', 'rolled_back', 'retired')",
            name="status_known",
        ),
        CheckConstraint("share >= 0 AND share <= 1", name="share_range"),
    )

    id: str = Field(primary_key=True)
    workload: str = workload_column()
    champion: str | None = reference("model_versions.version", ondelete="SET NULL", nullable=True)
    challenger: str | None = reference("model_versions.version", ondelete="SET NULL", nullable=True)
    share: float = Field()
    kind: str = Field(default="trial", sa_column_kwargs={"server_default": "trial"})
    frozen: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    status: str = Field(default="running")
    reason: str | None = text_column(nullable=True)
    settings: Any = json_column()
    started_at: datetime = moment()
    ended_at: datetime | None = moment(nullable=True)


class ExperimentArm(SQLModel, table=True):
    """One challenger of several that are on trial at once, each with an equal part of the share.

    A trial of one has no such rows. `experiments.challenger` is the first that is still running.
    """

    __tablename__ = "experiment_arms"
    __table_args__ = (
        CheckConstraint(
            "status IN ('running', 'promoted', 'rolled_back', 'retired')",
            name="status_known",
        ),
    )

    experiment_id: str = reference("experiments.id", ondelete="CASCADE", primary_key=True)
    version: str = reference("model_versions.version", ondelete="RESTRICT", primary_key=True)
    place: int = Field()
    status: str = Field(default="running", sa_column_kwargs={"server_default": "running"})
    reason: str | None = text_column(nullable=True)
    ended_at: datetime | None = moment(nullable=True)


class ExperimentDecision(SQLModel, table=True):
    """One look at an experiment: what was decided, why, and on which numbers.

    `version`: of several challengers, the one that it is about.
    """

    __tablename__ = "experiment_decisions"
    __table_args__ = (Index("ix_decisions_experiment", "experiment_id", "decided_at"),)

    id: str = Field(primary_key=True)
    experiment_id: str = reference("experiments.id", ondelete="CASCADE")
    version: str | None = Field(default=None)
    action: str = Field()
    reasons: Any = json_column()
    facts: Any = json_column()
    decided_at: datetime = moment()


class DeploymentState(SQLModel, table=True):
    """The desired state of one workload: routers and replicas make it so.

    `generation` grows by one with every change. `previous` stays loaded, so that a
    rollback is routing only. `share` is the challenger's share of traffic in [0, 1].
    `mode` tells what the challenger is there for: "trial", "shadow" (it answers copies, unseen)
    or "holdback" (it was champion before; no challenger is then the base model).
    """

    __tablename__ = "deployment_state"
    __table_args__ = (CheckConstraint("share >= 0 AND share <= 1", name="share_range"),)

    workload: str = reference("workloads.name", ondelete="CASCADE", primary_key=True)
    generation: int = Field(default=0)
    champion: str | None = reference("model_versions.version", ondelete="RESTRICT", nullable=True)
    challenger: str | None = reference("model_versions.version", ondelete="RESTRICT", nullable=True)
    previous: str | None = reference("model_versions.version", ondelete="SET NULL", nullable=True)
    experiment_id: str | None = reference("experiments.id", ondelete="SET NULL", nullable=True)
    share: float = Field(default=0.0)
    mode: str = Field(default="trial", sa_column_kwargs={"server_default": "trial"})
    updated_at: datetime = moment()


class ReplicaStatus(SQLModel, table=True):
    """What one router or model replica has made of the desired state."""

    __tablename__ = "replica_status"

    replica_id: str = Field(primary_key=True)
    kind: str = Field()
    generations: Any = json_column()
    versions: Any = json_column()
    refused: Any = json_column()
    seen_at: datetime = moment(index=True)


class ProductionPeriod(SQLModel, table=True):
    """Which versions served, and at what share, from when to when. Null `version`: the base.

    Names are kept without foreign keys: what served stays told when it is deleted. `action` is
    the change that opened the period; null where it was opened before changes were told.
    `rivals` are the challengers beside `challenger`.
    """

    __tablename__ = "production_history"
    __table_args__ = (Index("ix_production_history_workload", "workload", "from_at"),)

    id: str = Field(primary_key=True)
    workload: str = workload_column()
    generation: int = Field()
    version: str | None = Field(default=None)
    challenger: str | None = Field(default=None)
    rivals: Any = json_column(nullable=True)
    share: float = Field()
    action: str | None = Field(default=None)
    experiment_id: str | None = Field(default=None)
    reason: str = text_column()
    actor: str = Field()
    from_at: datetime = moment()
    to_at: datetime | None = moment(nullable=True)
