"""What a dry run would have written so far, in a file of its own that goes with it.

Its batches must not repeat each other either, and memory must not grow with the rows. No text
is kept: of the words only their numbers, which mean nothing outside of this process.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from flows.curation.kin import Kind, Sample
from flows.curation.signatures import request_text, word_keys

LATER = datetime.max.replace(tzinfo=UTC)
"""Everything in the database is older."""
_SCHEMA = """CREATE TABLE sample (
    id TEXT PRIMARY KEY, request_hash TEXT, cluster_id TEXT, side TEXT,
    corrected INTEGER, counts INTEGER, pair BLOB, request BLOB);
    CREATE INDEX by_request ON sample (request_hash)"""
_WORDS: dict[Kind, str] = {"signature": "pair", "request_signature": "request"}


class Rehearsed:
    """Samples of a dry run, by the hash of their content."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="kalimtak-dry-run-")
        self._file = sqlite3.connect(Path(self._folder.name) / "samples.db")
        self._file.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_SCHEMA}")

    def close(self) -> None:
        """Forget them."""
        self._file.close()
        self._folder.cleanup()

    def remember(self, frame: pl.DataFrame) -> None:
        """Take these samples for written."""
        columns = ("content_hash", "request_hash", "cluster_id", "split", "source", "disliked")
        texts = ("messages", "input_text", "target")
        rows = (
            (*about[:4], about[4] == "corrected", not about[5], *_keys(*rest))
            for about, rest in zip(
                frame.select(columns).iter_rows(), frame.select(texts).iter_rows(), strict=True
            )
        )
        self._file.executemany("INSERT OR IGNORE INTO sample VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def known_contents(self, hashes: Sequence[str]) -> set[str]:
        """Those of the contents that were curated before."""
        query = "SELECT id FROM sample WHERE id IN (SELECT value FROM json_each(?))"
        return {row[0] for row in self._file.execute(query, (json.dumps(list(hashes)),))}

    def equal_requests(self, hashes: Collection[str]) -> Iterator[tuple[str, Sample]]:
        """Requests among these with a sample of each side they stand on."""
        query = (
            "SELECT request_hash, cluster_id, side FROM sample WHERE request_hash IN"
            " (SELECT value FROM json_each(?)) GROUP BY 1, 2, 3"
        )
        for request, cluster, side in self._file.execute(query, (json.dumps(list(hashes)),)):
            yield request, Sample(request, (LATER, ""), cluster, side, False, False)

    def samples(self, ids: Sequence[str], kind: Kind) -> dict[str, Sample]:
        """Those of the ids that are there."""
        query = (
            f"SELECT id, rowid, cluster_id, side, corrected, counts, {_WORDS[kind]} FROM sample"
            " WHERE id IN (SELECT value FROM json_each(?))"
        )
        return {
            row[0]: Sample(
                id=row[0],
                age=(LATER, f"{row[1]:012}"),
                cluster_id=row[2],
                side=row[3],
                corrected=bool(row[4]),
                counts=bool(row[5]),
                words=frozenset(np.frombuffer(row[6], np.int64).tolist()),
            )
            for row in self._file.execute(query, (json.dumps(list(ids)),))
        }


def _keys(messages: str | None, request: str, target: str) -> tuple[bytes, bytes]:
    asked = request_text(messages, request)
    both = (f"{asked}\n{target}", asked)
    pair, alone = (np.array(list(word_keys(text)), np.int64).tobytes() for text in both)
    return pair, alone
