"""Reads many rows into polars, batch by batch, by Arrow's own drivers (ADBC).

For curation and export: what is read may be far larger than the memory. One statement sees
one state of the database, however long it takes to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import adbc_driver_manager
import polars as pl
from sqlalchemy import JSON, Boolean, DateTime, Float, Integer, Select, Text, cast, make_url
from sqlalchemy.types import TypeEngine

from registry.db import Database
from registry.errors import DatabaseError

BATCH_ROWS = 10_000
MOMENT = pl.Datetime("us", "UTC")
EMPTY = "''"
_EXAMPLES = {pl.Float64: "0.0", pl.Int64: "0", pl.Boolean: "0"}


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
    schema = schema_of(query)
    is_sqlite = database.engine.dialect.name == "sqlite"
    statement = (_on_sqlite if is_sqlite else _on_postgresql)(database, query)
    to_skip = 1 if is_sqlite else 0
    try:
        with _cursor(database, batch_rows) as cursor:
            cursor.execute(statement)
            for batch in cursor.fetch_record_batch():
                frame = pl.DataFrame(pl.from_arrow(batch)).slice(to_skip)
                to_skip = 0
                for part in frame.iter_slices(batch_rows):
                    if part.height:
                        yield _typed(part, schema)
    except adbc_driver_manager.Error as error:
        said = str(error).partition("\n")[0]
        raise DatabaseError(f"the database cannot be read: {said}") from error


@contextmanager
def _cursor(database: Database, batch_rows: int) -> Iterator[Any]:
    url = make_url(database.url)
    if url.get_backend_name() == "sqlite":
        from adbc_driver_sqlite import StatementOptions, dbapi

        with dbapi.connect(str(url.database)) as connection, connection.cursor() as cursor:
            cursor.adbc_statement.set_options(
                **{StatementOptions.BATCH_ROWS.value: str(batch_rows)}
            )
            yield cursor
        return
    from adbc_driver_postgresql import dbapi as postgresql_dbapi

    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with postgresql_dbapi.connect(address) as connection, connection.cursor() as cursor:
        yield cursor


def _on_sqlite(database: Database, query: Select[Any]) -> str:
    """The query behind a row that has a value of the right type in each column.

    SQLite's columns have no type of their own, and the driver guesses it from the first batch:
    wrongly where that holds only NULL. The extra row comes first, and is left out again.
    """
    example = ", ".join(
        f"{_EXAMPLES.get(type(type_), EMPTY)} AS c{number}"
        for number, type_ in enumerate(schema_of(query).dtypes())
    )
    return f"SELECT {example} UNION ALL SELECT * FROM ({_compiled(database, query)})"


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
    ):
        if isinstance(generic, kind):
            return found
    return MOMENT if isinstance(generic, DateTime) else pl.String()
