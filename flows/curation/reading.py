"""Reads interactions into frames: batch after batch in the order of feedback, bounded in memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import Any

import polars as pl
from sqlalchemy import Select, String, and_, or_, select, type_coerce
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col

from flows.curation.frames import SCHEMA
from registry import texts
from registry.crypto import Keyring
from registry.models import UserInteraction
from registry.privacy import may_be_learned

SEALABLE = [name for name in texts.COLUMNS["user_interactions"] if name in SCHEMA]
Place = tuple[datetime, str]
"""Moment of feedback and id of the last row that was read."""


def read_batch(
    session: Session,
    keyring: Keyring,
    *,
    workload: str,
    since: datetime | None,
    after: Place | None,
    limit: int,
) -> pl.DataFrame:
    """At most `limit` rated interactions in the order of feedback, with the columns of `SCHEMA`.

    Those with feedback later than `since`, and those that follow `after`. Answers that failed
    or that nobody saw are left out, and everything of people who opted out. Text that is not
    valid Unicode comes with U+FFFD in the place of what could not be read.
    """
    table = UserInteraction
    feedback_at, row_id = col(table.feedback_at), col(table.id)
    query = (
        # As the driver gives them: converting a value at a time costs more than reading.
        select(*(type_coerce(getattr(table, name), String) for name in SCHEMA))
        .where(
            col(table.workload) == workload,
            feedback_at.is_not(None),
            col(table.role) != "shadow",
            col(table.error).is_(None),
            may_be_learned(),
        )
        .order_by(feedback_at, row_id)
        .limit(limit)
    )
    if since is not None:
        query = query.where(feedback_at > since)
    if after is not None:
        later = and_(feedback_at == after[0], row_id > after[1])
        query = query.where(feedback_at >= after[0], or_(feedback_at > after[0], later))
    return _opened(_frame(_rows(session, query)), keyring)


def last_place(frame: pl.DataFrame) -> Place:
    """Where the next batch goes on."""
    row = frame.row(-1, named=True)
    return row["feedback_at"], row["id"]


def _rows(session: Session, query: Select[Any]) -> Sequence[Any]:
    """The rows of a query, whatever bytes SQLite holds: no row must stop the others."""
    try:
        return _fetched(session, query)
    except (OperationalError, sqlite3.OperationalError) as error:
        if "decode to UTF-8" not in str(error):
            raise
    driver: Any = session.connection().connection.driver_connection
    before = driver.text_factory
    driver.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        return _fetched(session, query)
    finally:
        driver.text_factory = before


def _fetched(session: Session, query: Select[Any]) -> Sequence[Any]:
    """As the driver gives them: an object of SQLAlchemy's for each row costs as much again."""
    with closing(session.connection().execute(query)) as result:
        assert result.cursor is not None
        return result.cursor.fetchall()


def _opened(frame: pl.DataFrame, keyring: Keyring) -> pl.DataFrame:
    """With the texts that lie sealed in the database as people wrote them."""
    is_sealed = pl.any_horizontal(
        pl.col(name).str.contains(f'^"?{texts.MARK}') for name in SEALABLE
    ).fill_null(False)
    if not frame.select(is_sealed.any()).item():
        return frame
    rows = [_unsealed(row, keyring) for row in frame.iter_rows(named=True)]
    return pl.DataFrame(rows, schema=frame.schema)


def _unsealed(row: dict[str, Any], keyring: Keyring) -> dict[str, Any]:
    if row["messages"] is not None:
        row["messages"] = json.loads(row["messages"])
    opened = texts.unseal_row("user_interactions", row, keyring)
    plain = {name: _storable(value) for name, value in opened.items()}
    return {**plain, "messages": _json_text(opened["messages"])}


def _frame(rows: Sequence[Any]) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows else ((),) * len(SCHEMA)
    return pl.DataFrame(
        [
            _series(name, dtype, list(values))
            for (name, dtype), values in zip(SCHEMA.items(), columns, strict=True)
        ]
    )


def _series(name: str, dtype: Any, values: list[Any]) -> pl.Series:
    if name == "feedback_at":
        return _moments(name, values)
    if name == "messages":
        values = [_json_text(value) for value in values]
    try:
        return pl.Series(name, values, dtype=dtype)
    except UnicodeEncodeError:
        return pl.Series(name, [_storable(value) for value in values], dtype=dtype)


def _moments(name: str, values: list[Any]) -> pl.Series:
    if values and isinstance(values[0], str):
        return pl.Series(name, values, dtype=pl.String).str.to_datetime(
            "%Y-%m-%d %H:%M:%S%.f", time_unit="us", time_zone="UTC"
        )
    return pl.Series(name, values, dtype=SCHEMA[name])


def _json_text(value: Any) -> str | None:
    """JSON with its characters as they are, so that patterns find them; unreadable: "[]"."""
    if value is None:
        return None
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return "[]"
    return json.dumps(found, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace").decode()


def _storable(value: Any) -> Any:
    """Sealed texts, and JSON, keep lone surrogates, which frames cannot hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
