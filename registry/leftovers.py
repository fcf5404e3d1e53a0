"""Files in the home folder that hold samples: of ended trainings, for rehearsal, in reports."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from registry import texts
from registry.crypto import Keyring
from registry.models import RetrainRun, TrainingData, UserInteraction

RUNS = "runs"
REPORTS = "reports"
UNTRACKED_AFTER = timedelta(days=1)
"""A folder that no training run owns is in use for less than this."""


def sweep_runs(session: Session, home: Path, *, now: datetime) -> tuple[int, int]:
    """Delete the folders of runs that have ended; how many, and how many are under way."""
    status = dict(session.exec(select(RetrainRun.id, RetrainRun.status)).all())
    removed = running = 0
    for folder in sorted((home / RUNS).glob("*/")):
        changed_at = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        known = status.get(folder.name)
        if known == "running" or (known is None and now - changed_at < UNTRACKED_AFTER):
            running += 1
        else:
            shutil.rmtree(folder)
            removed += 1
    return removed, running


def sweep_rehearsal(session: Session, path: Path, user_id: str, keyring: Keyring) -> int:
    """Take a user's samples out of the rehearsal file, by id or by what was said; how many."""
    if not path.exists():
        return 0
    said, ids = set[str](), set[str]()
    for row_id, parts in _texts_of(session, user_id, keyring):
        ids.add(row_id)
        said.update(parts)
    # Only a newline ends a record: texts may hold other separators of lines.
    with path.open(encoding="utf-8", newline="\n") as file:
        lines = list(file)
    kept = [line for line in lines if not _is_of(line, said, ids)]
    if len(kept) < len(lines):
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, path)
    return len(lines) - len(kept)


def sweep_pages(home: Path, *, before: datetime | None = None) -> int:
    """Delete the reports of curation, which quote what people asked; how many.

    Only those written `before` a moment, where one is given.
    """
    removed = 0
    for page in sorted((home / REPORTS).glob("curation-*.html")):
        written_at = datetime.fromtimestamp(page.stat().st_mtime, UTC)
        if before is None or written_at < before:
            page.unlink(missing_ok=True)
            removed += 1
    return removed


def _texts_of(session: Session, user_id: str, keyring: Keyring) -> Iterator[tuple[str, list[str]]]:
    own = select(UserInteraction).where(UserInteraction.user_id == user_id)
    for row in session.exec(own):
        texts.reveal(row, keyring)
        parts = (row.input_text, row.model_output, row.structured_prompt, row.corrected_output)
        yield row.id, [part.strip() for part in parts if part is not None]
    samples = (
        select(TrainingData)
        .join(UserInteraction, col(UserInteraction.id) == col(TrainingData.source_interaction_id))
        .where(UserInteraction.user_id == user_id)
    )
    for sample in session.exec(samples):
        texts.reveal(sample, keyring)
        yield sample.id, [sample.input_prompt.strip(), sample.target_output.strip()]


def _is_of(line: str, said: set[str], ids: set[str]) -> bool:
    """Both question and answer must be theirs: many people say hello."""
    try:
        record: dict[str, Any] = json.loads(line)
        turns = [str(turn["content"]).strip() for turn in record["messages"]]
    except (ValueError, KeyError, TypeError):
        return False
    known = {str(record.get(name)) for name in ("id", "interaction_id", "source_interaction_id")}
    return bool(known & ids) or (len(turns) > 1 and turns[-1] in said and turns[-2] in said)
