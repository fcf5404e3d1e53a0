"""The audit log: entries in a chain, and where the chain ends."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from registry.models.columns import json_column, moment


class AuditEntry(SQLModel, table=True):
    """One administrative act or automatic decision, chained to the one before it.

    `key_id` names the key of its digest; null in entries from before keys had names.
    """

    __tablename__ = "audit_log"

    sequence: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    at: datetime = moment()
    actor: str = Field()
    action: str = Field()
    subject: str = Field()
    details: Any = json_column()
    previous_digest: str = Field()
    digest: str = Field()
    key_id: str | None = Field(default=None)


class AuditHead(SQLModel, table=True):
    """Where the chain ends: one row, sealed, and locked by whoever appends.

    `seal` and `key_id` are null until a program opens the database with its keys.
    """

    __tablename__ = "audit_head"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sequence: int = Field()
    digest: str = Field()
    key_id: str | None = Field(default=None)
    seal: str | None = Field(default=None)
