"""Column types and helpers shared by all tables."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

DEFAULT_WORKLOAD = "default"

# Constraints need names that a later migration can refer to.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

# Nothing is stored as NULL, rather than as the JSON text "null".
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment in UTC. SQLite drops the zone, so it is taken off and put back here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: pass an aware one")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def moment(*, nullable: bool = False, index: bool = False, primary_key: bool = False) -> Any:
    """A `UtcDateTime` column; a nullable one defaults to None."""
    kwargs: dict[str, Any] = {
        "sa_type": UtcDateTime,
        "nullable": nullable,
        "index": index,
        "primary_key": primary_key,
    }
    if nullable:
        kwargs["default"] = None
    return Field(**kwargs)


def json_column(*, nullable: bool = False) -> Any:
    """A JSON column: an empty object unless it may be null."""
    if nullable:
        return Field(default=None, sa_type=Json, nullable=True)
    return Field(default_factory=dict, sa_type=Json, nullable=False)


def text_column(*, nullable: bool = False) -> Any:
    """Text of any length."""
    if nullable:
        return Field(default=None, sa_type=Text, nullable=True)
    return Field(sa_type=Text, nullable=False)


def reference(
    target: str,
    *,
    ondelete: str,
    nullable: bool = False,
    primary_key: bool = False,
    index: bool = False,
) -> Any:
    """A foreign key to `target` ("table.column"); keys are renamed along (ON UPDATE CASCADE)."""
    kwargs: dict[str, Any] = {
        "sa_column_args": [ForeignKey(target, ondelete=ondelete, onupdate="CASCADE")],
        "primary_key": primary_key,
        "index": index,
    }
    if nullable:
        kwargs |= {"default": None, "nullable": True}
    return Field(**kwargs)


def workload_column() -> Any:
    """The workload that a row belongs to."""
    return Field(
        default=DEFAULT_WORKLOAD,
        sa_column_args=[ForeignKey("workloads.name", ondelete="RESTRICT", onupdate="CASCADE")],
        sa_column_kwargs={"server_default": DEFAULT_WORKLOAD},
        nullable=False,
    )
