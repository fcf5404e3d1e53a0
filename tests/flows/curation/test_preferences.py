"""What people rejected: kept beside what is learned as it stands, never among it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from flows.curation.dataset import BuiltDataset
from registry.models import TrainingData
from tests.flows.curation.test_pipeline import World, database, world

__all__ = ["database", "world"]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def rate(world: World, *, disliked: int = 30) -> None:
    """Twenty liked, twenty corrected and some disliked answers."""
    for number in range(20):
        world.log(f"liked-{number}")
        world.rate(f"liked-{number}", 1)
        world.log(f"wrong-{number}", structured_prompt=f"Role: mail bob{number}@example.com")
        world.rate(f"wrong-{number}", -1, corrected=f"Role: right {number}")
    for number in range(disliked):
        world.log(f"bad-{number}", structured_prompt=f"Role: bad {number}", quality_score=0.1)
        world.rate(f"bad-{number}", -1)


def test_a_correction_carries_what_it_corrects_scrubbed(world: World) -> None:
    rate(world)
    world.curate()
    built = world.build("one")
    pairs = [record for record in records(built.preference_file) if "rejected" in record]
    assert pairs
    assert {record["source"] for record in pairs} == {"corrected"}
    assert all("<EMAIL_1>" in record["rejected"] for record in pairs)
    assert "@example.com" not in built.preference_file.read_text("utf-8")
    assert not any("rejected" in record for record in records(built.train_file))


def test_what_people_disliked_is_kept_only_when_it_is_asked_for(world: World) -> None:
    rate(world)
    report = world.curate()
    assert (report.num_added, report.notes.get("disliked, kept apart")) == (40, None)
    assert all("label" not in record for record in records(world.build("one").preference_file))


def kept(world: World) -> BuiltDataset:
    rate(world)
    report = world.curate(keep_disliked=True)
    assert (report.num_added, report.notes["disliked, kept apart"]) == (40, 30)
    return world.build("one", keep_disliked=True)


def test_disliked_answers_stand_in_the_preference_part_alone(world: World) -> None:
    built = kept(world)
    bad = [record for record in records(built.preference_file) if record.get("label") is False]
    assert 15 <= len(bad) <= 30
    for path in built.folder.rglob("*.jsonl"):
        if path != built.preference_file:
            assert "Role: bad" not in path.read_text("utf-8")
    assert len(records(built.preference_file)) == len(records(built.train_file)) + len(bad)


def test_preferences_load_with_the_datasets_library(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    built = kept(world)
    cache = str(tmp_path / "hf")
    loaded = datasets.load_dataset(str(built.folder), "preference", split="train", cache_dir=cache)
    assert sum(label is False for label in loaded["label"]) > 10
    assert sum(bool(text) for text in loaded["rejected"]) > 10
    plain = datasets.load_dataset(str(built.folder), "chatml", split="train", cache_dir=cache)
    assert "rejected" not in plain.column_names


def test_an_opinion_that_changes_moves_the_sample(world: World) -> None:
    world.log("a")
    world.rate("a", -1)
    world.curate(keep_disliked=True)
    assert stored(world) == {("Role: a", False, True)}
    world.rate("a", 1)
    world.curate(keep_disliked=True)
    assert stored(world) == {("Role: a", False, False), ("Role: a", None, True)}
    world.rate("a", -1)
    world.curate(keep_disliked=True)
    assert stored(world) == {("Role: a", False, True), ("Role: a", None, False)}


def stored(world: World) -> set[tuple[str, bool | None, bool]]:
    with world.database.read() as session:
        rows = session.exec(select(TrainingData)).all()
    return {(row.target_output, row.label, row.is_selected) for row in rows}
