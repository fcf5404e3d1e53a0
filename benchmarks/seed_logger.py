"""The usage logger of the seeds' design (afs.continuous): a connection and a commit per row."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

TABLE = """
CREATE TABLE IF NOT EXISTS usage (
    id TEXT PRIMARY KEY, timestamp TEXT NOT NULL, query TEXT NOT NULL, response TEXT NOT NULL,
    model TEXT NOT NULL, session_id TEXT, latency_ms REAL, tokens_in INTEGER, tokens_out INTEGER,
    quality_score REAL, user_feedback INTEGER, error TEXT)
"""
INDEXES = ("timestamp", "model", "quality_score", "user_feedback")


class SeedLogger:
    """`log` and `record_feedback` as `UsageLogger` has them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(TABLE)
            for column in INDEXES:
                connection.execute(f"CREATE INDEX ix_{column} ON usage ({column})")
            connection.commit()

    def log(self, query: str, response: str, model: str, quality_score: float) -> str:
        """One row, durable when this returns."""
        row_id = str(uuid.uuid4())
        now = datetime.now(UTC).isoformat()
        row = (row_id, now, query, response, model, "s", 120.5, 20, 80, quality_score)
        self._execute(
            "INSERT INTO usage (id, timestamp, query, response, model, session_id, latency_ms,"
            " tokens_in, tokens_out, quality_score) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        return row_id

    def record_feedback(self, row_id: str, feedback: int) -> None:
        """A thumb on a row."""
        self._execute("UPDATE usage SET user_feedback = ? WHERE id = ?", (feedback, row_id))

    def _execute(self, statement: str, values: tuple[object, ...]) -> None:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute(statement, values)
            connection.commit()
