"""Opens a file by what is in it, whatever it is called, and reads it in bounded memory."""

from __future__ import annotations

import csv
import gzip
import io
import sqlite3
import zlib
from collections import deque
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO, TextIO, cast
from urllib.parse import quote

import polars as pl

from flows.errors import UnreadableFileError
from flows.intake.rows import BROKEN_TEXT, MAX_ROW_CHARS, Row, Source, is_broken, parse_line

BATCH_ROWS = 500
SQLITE_TABLES = ("usage", "user_interactions")
"""afs.continuous's usage.db; Kalimtak's own table."""
DELIMITERS = ",;\t|"
TOO_LONG = f"longer than {MAX_ROW_CHARS} characters"
MAGIC_BYTES = 16
_DAMAGED = (OSError, EOFError, zlib.error, UnicodeError)
"""What reading raises where the bytes are not what they should be."""


def open_source(path: Path, *, encoding: str = "utf-8") -> Source:
    """Begin to read `path`. Raises `UnreadableFileError` for what is no file of a known kind."""
    try:
        with path.open("rb") as file:
            magic = file.read(MAGIC_BYTES)
    except OSError as error:
        raise UnreadableFileError(f"cannot read {path}: {error.strerror}") from error
    if not magic:
        raise UnreadableFileError(f"{path} is empty")
    if magic.startswith(b"PAR1"):
        return _parquet(path)
    if magic.startswith(b"SQLite format 3\0"):
        return _sqlite(path)
    return _text(path, magic, encoding)


def _text(path: Path, magic: bytes, encoding: str) -> Source:
    raw = path.open("rb")
    try:
        packed = magic.startswith(b"\x1f\x8b")
        file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
        text = _decode(file, _peek(file), encoding)
        first = _first_line(text)
        return _lines_source(path, raw, text, first)
    except (*_DAMAGED, LookupError) as error:
        raw.close()
        raise UnreadableFileError(f"cannot read {path}: {error}") from error
    except UnreadableFileError:
        raw.close()
        raise


def _lines_source(path: Path, raw: BinaryIO, text: TextIO, first: str) -> Source:
    def close() -> None:
        text.close()
        raw.close()  # which gzip leaves open

    total = path.stat().st_size
    if first.lstrip().startswith("{"):
        return Source("jsonl", _json_rows(text, first), total, raw.tell, close)
    if first.lstrip().startswith("["):
        raise UnreadableFileError(
            f"{path} is one JSON array: make lines of it first, as with jq -c '.[]'"
        )
    delimiter = max(DELIMITERS, key=lambda mark: len(_split(first, mark)))
    columns = tuple(name.strip() for name in _split(first, delimiter))
    if len(columns) < 2 or is_broken(first) or "\0" in first:
        raise UnreadableFileError(
            f"{path} is neither JSONL, CSV with a header, Parquet nor SQLite; "
            f"it begins with {first[:40]!r}"
        )
    rows = _csv_rows(text, delimiter, columns)
    return Source("csv", rows, total, raw.tell, close, columns)


def _peek(file: BinaryIO) -> bytes:
    start = file.read(4)
    file.seek(0)
    return start


def _decode(file: BinaryIO, start: bytes, encoding: str) -> TextIO:
    # Bytes that are no UTF-8 become halves of surrogate pairs, so that one bad row is one row.
    errors = "surrogateescape"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding, errors = "utf-16", "replace"
    elif encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    return io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")


def _first_line(text: TextIO) -> str:
    """The first line that says something; at most the longest that is taken."""
    while line := text.readline(MAX_ROW_CHARS):
        if line.strip():
            return line
    raise OSError("there is nothing in it but white space")


def _split(line: str, delimiter: str) -> list[str]:
    csv.field_size_limit(MAX_ROW_CHARS)
    return next(csv.reader([line], delimiter=delimiter), [])


def _lines(text: TextIO) -> Iterator[str | None]:
    """The lines; None for one that is too long, which is passed over in pieces."""
    while line := text.readline(MAX_ROW_CHARS + 1):
        if len(line) <= MAX_ROW_CHARS:
            yield line
            continue
        while line and not line.endswith(("\n", "\r")):
            line = text.readline(MAX_ROW_CHARS)
        yield None


def _json_rows(text: TextIO, first: str) -> Iterator[Row]:
    place = 1
    try:
        if first.endswith(("\n", "\r")) or len(first) < MAX_ROW_CHARS:
            yield parse_line(first, place)
        else:
            yield Row(place, None, TOO_LONG)
            next(_lines(text), None)
        for line in _lines(text):
            place += 1
            if line is None:
                yield Row(place, None, TOO_LONG)
            elif line.strip():
                yield parse_line(line, place)
    except _DAMAGED as error:
        yield Row(place + 1, None, f"the file is damaged from here on: {error}")


class _CsvLines:
    """Lines for `csv.reader`, which survives an error in the midst of them."""

    def __init__(self, text: TextIO) -> None:
        self._lines = _lines(text)
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self.place = 1
        """The line that was given last; the header is the first."""

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.place += 1
        if line is None:
            raise csv.Error(TOO_LONG)
        self._row.append(line)
        return line

    def begin_row(self) -> None:
        """What comes now belongs to the next row."""
        self._row = []

    def go_back(self) -> None:
        """Give what followed the first line of a broken row again: it may be rows of others."""
        after = self._row[1:]
        self._again.extendleft(reversed(after))
        self.place -= len(after)


def _csv_rows(text: TextIO, delimiter: str, columns: tuple[str, ...]) -> Iterator[Row]:
    lines = _CsvLines(text)
    # Where a quote is not closed, one person would be given the next one's text.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        place = lines.place + 1
        lines.begin_row()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(place, None, str(error))
            lines.go_back()
            continue
        except _DAMAGED as error:
            yield Row(place, None, f"the file is damaged from here on: {error}")
            return
        if not values:
            continue
        if len(values) != len(columns):
            fault = f"{len(values)} columns, where the header has {len(columns)}"
            yield Row(place, None, fault)
        elif any(is_broken(value) for value in values):
            yield Row(place, None, BROKEN_TEXT)
        else:
            yield Row(place, dict(zip(columns, values, strict=True)))


def _parquet(path: Path) -> Source:
    try:
        frame = pl.scan_parquet(path)
        columns = tuple(frame.collect_schema().names())
        total = int(frame.select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFileError(f"cannot read {path} as Parquet: {_one_line(error)}") from error
    return Source("parquet", _parquet_rows(frame), total, lambda: 0, lambda: None, columns)


def _parquet_rows(frame: pl.LazyFrame) -> Iterator[Row]:
    place = 0
    try:
        for batch in frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            for value in batch.iter_rows(named=True):
                place += 1
                yield Row(place, value)
    except (pl.exceptions.PolarsError, OSError) as error:
        yield Row(place + 1, None, f"the file is damaged from here on: {_one_line(error)}")


def _sqlite(path: Path) -> Source:
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        tables = {
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
        table = next((name for name in SQLITE_TABLES if name in tables), None)
        if table is None:
            connection.close()
            raise UnreadableFileError(
                f"{path} has no table {' or '.join(SQLITE_TABLES)}; "
                f"it has: {', '.join(sorted(tables)) or 'none'}"
            )
        total = int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        cursor = connection.execute(f"SELECT * FROM {table} ORDER BY rowid")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise UnreadableFileError(f"cannot read {path} as SQLite: {error}") from error
    columns = tuple(entry[0] for entry in cursor.description)
    rows = _sqlite_rows(cursor, columns)
    return Source("sqlite", rows, total, lambda: 0, connection.close, columns, table)


def _sqlite_rows(cursor: sqlite3.Cursor, columns: tuple[str, ...]) -> Iterator[Row]:
    for place in count(1):
        try:
            values = cursor.fetchone()
        except sqlite3.DatabaseError as error:
            yield Row(place, None, f"the file is damaged from here on: {error}")
            return
        if values is None:
            return
        if any(isinstance(value, str) and is_broken(value) for value in values):
            yield Row(place, None, BROKEN_TEXT)
        else:
            yield Row(place, dict(zip(columns, values, strict=True)))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
