"""What says how good an answer is."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from registry.models.columns import json_column, moment, text_column, workload_column


class QualityScorer(SQLModel, table=True):
    """A fitted scorer: its artifact, what it showed on held-out ratings, whether it scores."""

    __tablename__ = "quality_scorers"
    __table_args__ = (
        Index(
            "uq_one_active_scorer",
            "workload",
            unique=True,
            sqlite_where=text("is_active"),
            postgresql_where=text("is_active"),
        ),
        Index("ix_quality_scorers_workload_created", "workload", "created_at"),
    )

    version: str = Field(primary_key=True)
    workload: str = workload_column()
    digest: str = Field()
    metrics: Any = json_column()
    is_active: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    status_reason: str = text_column()
    created_at: datetime = moment()
