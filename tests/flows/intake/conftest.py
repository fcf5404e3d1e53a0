"""Imports files as the command does, and looks at what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from flows.context import Context
from flows.intake.importing import Importer, ImportReport, Request
from registry.models import FeedbackEvent, UserInteraction

Run = Callable[..., ImportReport]

GOOD = {"input_text": "Write an email", "model_output": "Role: writer"}
CHAT = [
    {"role": "user", "content": "What is a SNES?"},
    {"role": "assistant", "content": "A console"},
]


@pytest.fixture
def run(context: Context, tmp_path: Path) -> Run:
    """Import a file as `kalimtak import` does."""

    def run(path: Path, **options: Any) -> ImportReport:
        request = Request(
            path=path, workload="default", refused_path=tmp_path / "refused.jsonl", **options
        )
        return Importer(context, request).run()

    return run


def stored(context: Context) -> list[UserInteraction]:
    with context.database.read() as session:
        query = select(UserInteraction).order_by(UserInteraction.input_text)
        return list(session.exec(query).all())


def events(context: Context) -> list[FeedbackEvent]:
    with context.database.read() as session:
        return list(session.exec(select(FeedbackEvent)).all())


def refused(tmp_path: Path) -> list[Any]:
    return [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]


def jsonl(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path
