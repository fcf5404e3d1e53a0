"""Looks for a word in everything that an installation keeps: every file, every table."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import text
from sqlmodel import SQLModel

from registry.db import Database


def files_with(folder: Path, word: str) -> list[str]:
    """The files whose bytes hold the word, as text or as JSON escapes it; names count too."""
    forms = {word.encode(), json.dumps(word).strip('"').encode()}
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if word in path.name or (path.is_file() and any(f in path.read_bytes() for f in forms))
    ]


def tables_with(database: Database, word: str) -> list[str]:
    """The tables in which a row shows the word, whatever type its columns have."""
    found = []
    with database.engine.connect() as connection:
        for name in SQLModel.metadata.tables:
            rows = connection.execute(text(f"SELECT * FROM {name}")).all()
            found += [name] if word in repr(rows) else []
    return found
