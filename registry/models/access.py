"""Who may call without a token of an identity provider."""

from datetime import datetime

from sqlalchemy import CheckConstraint
from sqlmodel import Field, SQLModel

from registry.models.columns import moment, text_column


class ApiKey(SQLModel, table=True):
    """A key for a program: known by its prefix, kept as a keyed hash.

    Without a subject it speaks for all users, and says for whom in each request.
    """

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("role IN ('user', 'reviewer', 'admin')", name="role_known"),)

    prefix: str = Field(primary_key=True)
    hash: str
    name: str = text_column()
    role: str
    subject_encrypted: str | None = text_column(nullable=True)
    created_at: datetime = moment()
    expires_at: datetime | None = moment(nullable=True)
    revoked_at: datetime | None = moment(nullable=True)
    last_used_at: datetime | None = moment(nullable=True)
