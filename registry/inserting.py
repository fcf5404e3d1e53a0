"""INSERT that knows what to do about rows that are there already, on either database."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Dialect, LargeBinary, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine
from sqlmodel import Session


def own_insert(session: Session, table: type[Any]) -> postgresql.Insert | sqlite.Insert:
    """The dialect's own INSERT, which can say what is to be done about conflicts."""
    if session.connection().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_ignoring_duplicates(
    session: Session, table: type[Any], rows: Sequence[dict[str, Any]]
) -> int:
    """Insert rows, leaving out those that break a unique constraint; the number inserted.

    All rows have the same columns.
    """
    if not rows:
        return 0
    statement = own_insert(session, table).on_conflict_do_nothing()
    # Without being asked to, SQLAlchemy tells -1 of an INSERT on PostgreSQL.
    counted = {"preserve_rowcount": True}
    return session.connection().execute(statement, rows, execution_options=counted).rowcount


def insert_columns(
    session: Session, table: type[Any], columns: Mapping[str, Any], *, num_rows: int
) -> None:
    """Insert many rows, given as columns: a list each, or one value for all rows.

    For tens of thousands: a column is converted as a whole and goes to the driver as it is,
    where SQLAlchemy would look at every value of every row by itself.
    """
    if not num_rows:
        return
    connection, types = session.connection(), table.__table__.c
    given = {
        **{
            column.name: column.default.arg
            for column in types
            if column.default and column.default.is_scalar
        },
        **columns,
    }
    ordered = {column.name: given[column.name] for column in types if column.name in given}
    converted = [
        _converted(types[name].type, values, num_rows, connection.dialect)
        for name, values in ordered.items()
    ]
    statement = insert(table).compile(dialect=connection.dialect, column_keys=list(ordered))
    rows = zip(*converted, strict=True)
    named = (
        list(rows)
        if statement.positional
        else [dict(zip(ordered, row, strict=True)) for row in rows]
    )
    connection.exec_driver_sql(str(statement), named)


def _converted(
    type_: TypeEngine[Any], values: Any, num_rows: int, dialect: Dialect
) -> Sequence[Any]:
    """The values as the driver takes them."""
    convert = type_.dialect_impl(dialect).bind_processor(dialect)
    if not isinstance(values, list):
        return [convert(values) if convert else values] * num_rows
    if convert is None or isinstance(type_, LargeBinary):  # drivers take bytes as they are
        return values
    return [convert(value) for value in values]
