"""Values as files have them → values as an interaction takes them. What makes no sense stays."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

THUMBS = {"up": 1, "down": -1, "positive": 1, "negative": -1, "true": 1, "false": -1}
UNIX_SCALES = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
"""Below the first number a moment is in seconds, below the next in milliseconds, …"""
OLDEST_S = 1e8
"""Smaller numbers are days of a spreadsheet, or dates written without signs: not of 1970."""


class RowError(ValueError):
    """A row that cannot be taken, and the field that is to blame."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def is_missing(value: Any) -> bool:
    """Whether a cell says nothing."""
    return value is None or (isinstance(value, str) and not value.strip())


def label(value: Any) -> Any:
    """An id or a name; numbers become text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def integer(value: Any) -> Any:
    """A whole number, also where it came as text or as 3.0."""
    found = number(value)
    return int(found) if isinstance(found, float) and found.is_integer() else found


def number(value: Any) -> Any:
    """A number, also where it came as text."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def thumb(value: Any) -> Any:
    """-1, 0 or 1, also where it came as a word."""
    if isinstance(value, bool):
        return 1 if value else -1
    if isinstance(value, str):
        return THUMBS.get(value.strip().lower(), integer(value))
    return integer(value)


def decoded(value: Any) -> Any:
    """Nested values, which CSV and SQLite hold as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def turns(value: Any) -> Any:
    """The messages of a chat, without what is null in them: Parquet fills gaps with nulls."""
    return _without_nulls(decoded(value), depth=0)


def moment(value: Any) -> tuple[datetime, bool]:
    """A moment, and whether its time zone was assumed to be UTC. Raises `RowError`."""
    if isinstance(value, str):
        found = _from_text(value.strip())
    elif isinstance(value, datetime):
        found = value
    elif isinstance(value, date):
        found = datetime(value.year, value.month, value.day)
    else:
        found = _from_number(value, value)
    if found.tzinfo is None:
        return found.replace(tzinfo=UTC), True
    return found, False


def _from_text(text: str) -> datetime:
    found = number(text)
    if isinstance(found, float) and len(text) > len("YYYYMMDD"):
        return _from_number(found, text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return _from_number(found, text)


def _from_number(value: Any, shown: Any) -> datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        for limit, scale in UNIX_SCALES:
            if OLDEST_S <= value < limit:
                return datetime.fromtimestamp(value / scale, UTC)
    reason = f"{str(shown)[:40]!r} is neither an ISO 8601 time nor a Unix time"
    raise RowError("created_at", reason)


def _without_nulls(value: Any, *, depth: int) -> Any:
    if depth > 20:
        raise RowError("messages", "nested too deeply")
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if part is not None}
        return {name: _without_nulls(part, depth=depth + 1) for name, part in kept.items()}
    if isinstance(value, list):
        return [_without_nulls(part, depth=depth + 1) for part in value]
    return value
