"""What waits for a person's judgement, and what was judged."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index
from sqlmodel import Field, SQLModel

from registry.models.columns import moment, reference, workload_column


class ReviewItem(SQLModel, table=True):
    """An interaction that somebody should look at; `reason` begins with its kind and a colon."""

    __tablename__ = "review_items"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'accepted', 'rejected')", name="state_known"),
        Index("ix_review_items_workload_state", "workload", "state", "created_at"),
    )

    id: str = Field(primary_key=True)
    workload: str = workload_column()
    interaction_id: str = reference("user_interactions.id", ondelete="CASCADE", index=True)
    reason: str = Field()
    state: str = Field(default="pending", sa_column_kwargs={"server_default": "pending"})
    created_at: datetime = moment()
    decided_at: datetime | None = moment(nullable=True)
    decided_by: str | None = Field(default=None)
