"""Exports: `datasets.load_dataset` reads them back, and nobody is in them who should not be."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import datasets
import pytest
from sqlalchemy import update
from sqlmodel import col

from flows import exporting
from flows.context import Context
from flows.curation.dataset import build_dataset
from flows.curation.pipeline import curate
from flows.errors import ExportError
from flows.exporting import (
    Format,
    Wanted,
    export_dataset,
    export_feedback,
    export_interactions,
)
from registry import interactions
from registry.errors import ConflictError
from registry.interactions import Feedback, Interaction
from registry.models import User
from tests.support.usage import log_liked

FORMATS: list[Format] = ["parquet", "jsonl"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def load(folder: Path) -> Any:
    return datasets.load_dataset(str(folder))


def wanted(folder: Path, format: Format = "parquet", **changes: Any) -> Wanted:
    return Wanted(workload="default", format=format, folder=folder, **changes)


def log(context: Context, name: str, **changes: Any) -> None:
    values: dict[str, Any] = {
        "id": name,
        "created_at": context.clock(),
        "input_text": f"about {name}",
        "structured_prompt": "",
        "model_output": f"answer to {name}",
        "external_user_id": f"person-{name}",
    }
    with context.database.write() as session:
        interactions.log(session, [Interaction(**(values | changes))], keyring=context.keyring)


def opt_out(context: Context, external_id: str) -> None:
    pseudonym = context.keyring.pseudonym(external_id)
    with context.database.write() as session:
        session.connection().execute(
            update(User).where(col(User.id) == pseudonym).values(consent="no_training")
        )


@pytest.mark.parametrize("format", FORMATS)
def test_interactions_come_back_whatever_their_first_rows_lack(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format
) -> None:
    monkeypatch.setattr(exporting, "ROWS_A_FILE", 2)
    for name in ("a", "b", "c"):
        log(context, name, external_user_id=None)
    chat = [{"role": "user", "content": "häh?", "tool_calls": [{"name": "x"}]}]
    log(context, "d", messages=chat, session_id="sess-1", quality_score=0.5, tokens_input=3)
    assert export_interactions(context, wanted(tmp_path / "out", format)) == 4
    assert len(list((tmp_path / "out").glob(f"train-*.{format}"))) == 2
    rows = load(tmp_path / "out")["train"]
    assert list(rows["id"]) == ["a", "b", "c", "d"]
    assert (rows[0]["messages"], rows[0]["tokens_input"], rows[0]["user_id"]) == (None,) * 3
    last = rows[3]
    assert json.loads(last["messages"]) == chat
    assert (last["tokens_input"], last["quality_score"]) == (3, 0.5)
    assert last["created_at"] == context.clock()
    assert last["user_id"] == context.keyring.pseudonym("person-d")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"person-d" not in everything
    assert b"sess-1" not in everything


@pytest.mark.parametrize("format", FORMATS)
def test_feedback_comes_back(context: Context, tmp_path: Path, format: Format) -> None:
    log(context, "a")
    with context.database.write() as session:
        for feedback in (
            Feedback(interaction_id="a", thumb=1),
            Feedback(interaction_id="a", score=2, text="too long", corrected_output="short"),
        ):
            interactions.add_feedback(session, feedback, now=context.clock(), new_id=context.new_id)
    assert export_feedback(context, wanted(tmp_path / "out", format)) == 2
    rows = load(tmp_path / "out")["train"]
    assert list(rows["interaction_id"]) == ["a", "a"]
    assert sorted(rows["thumb"]) == [-1, 1]
    assert "too long" in list(rows["text"])


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_comes_back_without_those_who_left(
    context: Context, tmp_path: Path, format: Format
) -> None:
    log_liked(context, 40, at=context.clock())
    make_dataset(context, tmp_path)
    written, left_out = export_dataset(context, wanted(tmp_path / "all", format), dataset_id=None)
    assert (written, left_out) == (40, 0)
    both = load(tmp_path / "all")
    assert sum(split.num_rows for split in both.values()) == 40
    first = both["train"][0]
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]
    assert (first["target_tool"], first["weight"]) == ("email", 1.0)
    opt_out(context, "user-1")
    written, left_out = export_dataset(context, wanted(tmp_path / "some", format), dataset_id=None)
    assert (written, left_out) == (32, 8)
    asked = wanted(tmp_path / "asked", format, include_opted_out=True)
    assert export_dataset(context, asked, dataset_id=None) == (40, 0)


def test_what_was_rehearsed_of_earlier_samples_leaves_with_their_people(
    context: Context, tmp_path: Path
) -> None:
    settings = context.settings
    few = settings.curation.model_copy(update={"max_samples": 20})
    context = replace(context, settings=settings.model_copy(update={"curation": few}))
    log_liked(context, 40, at=context.clock())
    make_dataset(context, tmp_path)
    written, _ = export_dataset(context, wanted(tmp_path / "all", "parquet"), dataset_id=None)
    assert written > 20
    for number in range(5):
        opt_out(context, f"user-{number}")
    with pytest.raises(ExportError, match="there is nothing to export"):
        export_dataset(context, wanted(tmp_path / "none", "parquet"), dataset_id=None)


def make_dataset(context: Context, tmp_path: Path) -> None:
    common: dict[str, Any] = {
        "workload": "default",
        "settings": context.settings.curation,
        "keyring": context.keyring,
        "clock": context.clock,
        "new_id": context.new_id,
    }
    curate(context.database, **common)
    build_dataset(context.database, context.store, folder=tmp_path / "dataset", **common)


def test_who_opted_out_is_left_out_unless_asked_for(context: Context, tmp_path: Path) -> None:
    for name in ("a", "b"):
        log(context, name)
    opt_out(context, "person-a")
    assert export_interactions(context, wanted(tmp_path / "without")) == 1
    assert list(load(tmp_path / "without")["train"]["id"]) == ["b"]
    assert export_interactions(context, wanted(tmp_path / "with", include_opted_out=True)) == 2


def test_a_window_of_time_is_half_open(context: Context, tmp_path: Path) -> None:
    start = context.clock()
    for hour in range(3):
        log(context, str(hour), created_at=start + timedelta(hours=hour))
    window = wanted(
        tmp_path / "out", since=start + timedelta(hours=1), until=start + timedelta(hours=2)
    )
    assert export_interactions(context, window) == 1


def test_where_there_is_nothing_nothing_is_written(context: Context, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is nothing to export"):
        export_interactions(context, wanted(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_nothing_half_written(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(context, "a")
    export_interactions(context, wanted(tmp_path / "out"))
    with pytest.raises(ConflictError, match="is there already"):
        export_interactions(context, wanted(tmp_path / "out"))

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(exporting, "_describe", fail)
    with pytest.raises(OSError, match="no space left"):
        export_interactions(context, wanted(tmp_path / "other"))
    assert not [path for path in tmp_path.iterdir() if "other" in path.name]


def test_a_dataset_that_is_not_there_is_refused(context: Context, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="has no dataset yet"):
        export_dataset(context, wanted(tmp_path / "out"), dataset_id=None)
    with pytest.raises(ExportError, match="has no dataset 'x'"):
        export_dataset(context, wanted(tmp_path / "out"), dataset_id="x")
