"""Looks for a word in everything that an installation keeps: every file, every table."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from sqlalchemy import text
from sqlmodel import SQLModel

from registry.db import Database


def files_with(folder: Path, word: str) -> list[str]:
    """The files whose bytes hold the word, as text or as JSON escapes it; names count too.

    Another process looks: closing a database's file here would drop this process's locks on it.
    """
    forms = sorted({word, json.dumps(word).strip('"')})
    patterns = [argument for form in forms for argument in ("-e", form)]
    found = subprocess.run(
        ["grep", "-rlaF", *patterns, "."], cwd=folder, capture_output=True, text=True, check=False
    )
    assert found.returncode in (0, 1), found.stderr
    inside = {line.removeprefix("./") for line in found.stdout.splitlines()}
    named = {str(path.relative_to(folder)) for path in folder.rglob("*") if word in path.name}
    return sorted(inside | named)


def tables_with(database: Database, word: str) -> list[str]:
    """The tables in which a row shows the word, whatever type its columns have."""
    found = []
    with database.engine.connect() as connection:
        for name in SQLModel.metadata.tables:
            rows = connection.execute(text(f"SELECT * FROM {name}")).all()
            found += [name] if word in repr(rows) else []
    return found
