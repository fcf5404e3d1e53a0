"""What the endpoint itself keeps."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from registry.models.columns import moment, text_column


class IdempotencyKey(SQLModel, table=True):
    """A request that a caller may repeat, and its answer once there is one.

    `id` is a digest of caller, path and key. Until `expires_at` the row is in flight (no
    `status`), or its answer is sent again.
    """

    __tablename__ = "idempotency_keys"

    id: str = Field(primary_key=True)
    body_digest: str = Field()
    claim: str = Field()
    status: int | None = Field(default=None)
    media_type: str | None = Field(default=None)
    body: str | None = text_column(nullable=True)
    user_id: str | None = Field(default=None, index=True)
    """Pseudonym of whom the answer is for, where that is known."""
    created_at: datetime = moment()
    expires_at: datetime = moment(index=True)
