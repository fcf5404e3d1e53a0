"""A generator of training data as afs.continuous designed it: row by row, all in memory."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

RECORDS = (
    "SELECT id, created_at, input_text, structured_prompt, model_version, quality_score,"
    " user_feedback, target_tool, language FROM user_interactions"
    " WHERE quality_score >= 0.7 AND user_feedback >= 1"
)


def generate(path: Path, out: str) -> int:
    """As afs.continuous has it: records of the log, candidates, filter, dedupe by hash, export."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    records = [
        UsageRecord(
            id=row["id"],
            timestamp=datetime.fromisoformat(row["created_at"]),
            prompt=row["input_text"],
            response=row["structured_prompt"],
            model=row["model_version"],
            quality_score=row["quality_score"],
            feedback=row["user_feedback"],
            metadata={"tool": row["target_tool"], "language": row["language"]},
        )
        for row in connection.execute(RECORDS).fetchall()
    ]
    candidates = [r for r in records if r.quality_score >= 0.7 and r.feedback >= 1]
    seen, samples = set(), []
    for record in candidates:
        text = f"{record.prompt.strip().lower()}\x1f{record.response.strip().lower()}"
        digest = sha256(text.encode()).hexdigest()
        if digest not in seen:
            seen.add(digest)
            samples.append(record)
    with open(out, "w", encoding="utf-8") as file:
        for record in samples:
            turns = [
                {"role": "user", "content": record.prompt},
                {"role": "assistant", "content": record.response},
            ]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    return len(samples)


@dataclass
class UsageRecord:
    """One row of the usage log, as afs.continuous hands it to its generator."""

    id: str
    timestamp: datetime
    prompt: str
    response: str
    model: str | None
    quality_score: float
    feedback: int
    metadata: dict[str, object]
