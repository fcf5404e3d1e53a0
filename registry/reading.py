"""Reads many rows into polars, batch by batch.

What is read may be far larger than the memory; one statement sees one state of the database,
however long it takes to read. PostgreSQL is read by Arrow's own driver (ADBC). SQLite is not:
that driver brings a second SQLite into the process, and a file that one of them closes loses the
locks of the other (sqlite.org, "How to corrupt an SQLite database file", section 2.2.1).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import polars as pl
from sqlalchemy import (
    JSON,
    Boolean,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Select,
    Text,
    cast,
    make_url,
)
from sqlalchemy.types import TypeEngine

from registry.db import Database
from registry.errors import DatabaseError

BATCH_ROWS = 10_000
MOMENT = pl.Datetime("us", "UTC")
_STORED: dict[type[pl.DataType], pl.DataType] = {
    pl.Datetime: pl.String(),
    pl.Boolean: pl.Int64(),
}
"""How SQLite keeps what it has no type for."""


def schema_of(query: Select[Any]) -> pl.Schema:
    """The columns of the frames that `iter_frames` yields; JSON comes as text."""
    return pl.Schema(
        [(str(column.key), _polars_type(column.type)) for column in query.selected_columns]
    )


def iter_frames(
    database: Database, query: Select[Any], *, batch_rows: int = BATCH_ROWS
) -> Iterator[pl.DataFrame]:
    """The rows of `query` in its order, as frames of at most `batch_rows` rows, none empty.

    Columns are named and typed as in `schema_of`. Raises `DatabaseError`.
    """
    if database.engine.dialect.name == "sqlite":
        yield from _from_sqlite(database, query, batch_rows)
    else:
        yield from _from_postgresql(database, query, batch_rows)


def _from_sqlite(database: Database, query: Select[Any], batch_rows: int) -> Iterator[pl.DataFrame]:
    schema = schema_of(query)
    stored = {name: _STORED.get(type(type_), type_) for name, type_ in schema.items()}
    statement = _compiled(database, query)
    try:
        with database.engine.connect() as connection:
            cursor = connection.connection.cursor()
            cursor.execute(statement)
            while rows := cursor.fetchmany(batch_rows):
                yield _typed(pl.DataFrame(rows, schema=stored, orient="row"), schema)
    except sqlite3.Error as error:
        raise _unreadable(error) from error


def _from_postgresql(
    database: Database, query: Select[Any], batch_rows: int
) -> Iterator[pl.DataFrame]:
    from adbc_driver_postgresql import dbapi  # comes with kalimtak[postgresql]

    schema, statement = schema_of(query), _on_postgresql(database, query)
    url = make_url(database.url).set(drivername="postgresql")
    address = url.render_as_string(hide_password=False)
    try:
        with dbapi.connect(address) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            for batch in cursor.fetch_record_batch():
                for part in pl.DataFrame(pl.from_arrow(batch)).iter_slices(batch_rows):
                    if part.height:
                        yield _typed(part, schema)
    except dbapi.Error as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> DatabaseError:
    said = str(error).partition("\n")[0]
    return DatabaseError(f"the database cannot be read: {said}")


def _on_postgresql(database: Database, query: Select[Any]) -> str:
    columns = [
        cast(column, Text).label(column.key) if isinstance(column.type, JSON) else column
        for column in query.selected_columns
    ]
    return _compiled(database, query.with_only_columns(*columns))


def _compiled(database: Database, query: Select[Any]) -> str:
    """As text alone: parameters would make PostgreSQL's driver keep the whole result in memory."""
    with database.engine.connect() as connection:  # which tells how it escapes
        compiled = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    text = str(compiled)
    return text.replace("%%", "%") if connection.dialect.paramstyle == "pyformat" else text


def _typed(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    frame.columns = schema.names()
    moments = [
        pl.col(name).str.to_datetime(time_unit="us", time_zone="UTC")
        for name, type_ in schema.items()
        if type_ == MOMENT and frame.schema[name] == pl.String
    ]
    return frame.with_columns(moments).cast(schema)


def _polars_type(type_: TypeEngine[Any]) -> pl.DataType:
    generic = getattr(type_, "impl", type_)
    for kind, found in (
        (Boolean, pl.Boolean()),
        (Integer, pl.Int64()),
        (Float, pl.Float64()),
        (LargeBinary, pl.Binary()),
    ):
        if isinstance(generic, kind):
            return found
    return MOMENT if isinstance(generic, DateTime) else pl.String()
