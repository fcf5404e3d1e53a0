"""What a reader yields: rows, and the places that could not be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

MAX_ROW_CHARS = 8 * 1024 * 1024
"""A longer line, or a longer field of CSV, is refused without being held in memory."""

Kind = Literal["jsonl", "csv", "parquet", "sqlite"]


@dataclass(frozen=True)
class Row:
    """One row, or why it is none."""

    place: int
    """Number of the line (text) or row (tables), from 1."""
    value: dict[str, Any] | None
    fault: str | None = None


@dataclass(frozen=True)
class Source:
    """A file that is being read from its beginning."""

    kind: Kind
    rows: Iterator[Row]
    total: int
    """Bytes of text, rows of a table."""
    position: Callable[[], int]
    """How much of `total` has been read."""
    close: Callable[[], object]
    columns: tuple[str, ...] | None = None
    """Names of the columns; None where every row has its own."""
    table: str | None = None


def parse_line(text: str, place: int) -> Row:
    """A line of JSON as a row."""
    if is_broken(text):
        return Row(place, None, BROKEN_TEXT)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Row(place, None, f"no JSON: {str(error)[:100]}")
    if not isinstance(value, dict):
        return Row(place, None, "no JSON object")
    return Row(place, value)


BROKEN_TEXT = "not in the file's encoding (UTF-8 unless --encoding says otherwise)"


def is_broken(text: str) -> bool:
    """Whether bytes could not be decoded: they stand there as halves of surrogate pairs."""
    return any("\udc80" <= char <= "\udcff" for char in text) if not text.isascii() else False
