import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from flows.curation.dataset import BuiltDataset, build_dataset
from flows.curation.pipeline import CurationReport, curate
from registry import deployment, interactions, lineage, versions
from registry.artifacts import ArtifactStore
from registry.crypto import Keyring
from registry.db import Database, open_database
from registry.errors import SettingsError
from registry.interactions import Feedback, Interaction
from registry.models import CuratedSignature, ReviewItem, TrainingData
from registry.settings_curation import CurationSettings

NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)
KEYRING = Keyring(bytes(32))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    found = open_database(database_url)
    with found.write() as session:
        deployment.add_workload(session, "default", now=NOW)
    yield found
    found.close()


class World:
    """One installation with a clock that the test moves."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder, self.now = database, folder, NOW
        self.counter = iter(range(100_000))
        self.store = ArtifactStore((folder / "store").as_uri(), cache=folder / "cache")

    def new_id(self) -> str:
        return f"id-{next(self.counter):05}"

    def log(self, name: str, **changes: object) -> None:
        values: dict[str, object] = {
            "id": name,
            "created_at": self.now,
            "input_text": f"write a mail about {name}",
            "structured_prompt": f"Role: {name}",
            "model_output": f"Role: {name}",
            "quality_score": 0.9,
            "target_tool": "email",
            "language": "en",
        }
        with self.database.write() as session:
            item = Interaction(**(values | changes))  # type: ignore[arg-type]
            interactions.log(session, [item], keyring=KEYRING)

    def rate(self, name: str, thumb: int, corrected: str | None = None) -> None:
        self.now += timedelta(minutes=10)
        with self.database.write() as session:
            interactions.add_feedback(
                session,
                Feedback(interaction_id=name, thumb=thumb, corrected_output=corrected),
                now=self.now,
                new_id=self.new_id,
            )

    def curate(self, *, dry_run: bool = False, **settings: object) -> CurationReport:
        return curate(
            self.database,
            workload="default",
            settings=CurationSettings(**settings),  # type: ignore[arg-type]
            keyring=KEYRING,
            clock=lambda: self.now,
            new_id=self.new_id,
            dry_run=dry_run,
        )

    def build(self, name: str, **settings: object) -> BuiltDataset:
        return build_dataset(
            self.database,
            self.store,
            workload="default",
            settings=CurationSettings(**settings),  # type: ignore[arg-type]
            keyring=KEYRING,
            folder=self.folder / name,
            clock=lambda: self.now,
            new_id=self.new_id,
        )

    def samples(self) -> dict[str, tuple[str, bool]]:
        with self.database.read() as session:
            rows = session.exec(select(TrainingData)).all()
        return {row.source_interaction_id: (row.target_output, row.is_selected) for row in rows}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def test_good_answers_become_samples_and_the_report_counts_every_row(world: World) -> None:
    for name, thumb in (("a", 1), ("b", -1), ("c", 1)):
        world.log(name)
        world.rate(name, thumb)
    world.log("unrated")
    report = world.curate()
    assert report.counts == {
        "with feedback": 3,
        "not refused by a reviewer": 3,
        "readable": 3,
        "with something to learn": 3,
        "of enough quality": 3,
        "liked or corrected": 2,
        "scrubbed": 2,
        "not held for a reviewer": 2,
        "distinct": 2,
        "not curated before": 2,
        "no near-duplicate": 2,
        "on one side of the split": 2,
    }
    assert (report.num_added, report.by_tool) == (2, {"email": 2})
    assert set(world.samples()) == {"a", "c"}


def test_a_second_pass_changes_nothing(world: World) -> None:
    world.log("a")
    world.rate("a", 1)
    world.curate()
    before = world.samples()
    assert world.curate().num_added == 0
    assert world.samples() == before


def test_a_dry_run_writes_nothing(world: World) -> None:
    world.log("a")
    world.rate("a", 1)
    assert world.curate(dry_run=True).num_added == 1
    assert world.samples() == {}
    assert world.curate().num_added == 1


def test_late_feedback_on_an_old_answer_is_found(world: World) -> None:
    world.log("old")
    world.log("new")
    world.rate("new", 1)
    world.curate()
    world.now += timedelta(days=3)
    world.rate("old", 1)
    assert world.curate().num_added == 1


def test_praise_that_is_withdrawn_takes_the_sample_out_and_back_in(world: World) -> None:
    world.log("a")
    world.rate("a", 1)
    world.curate()
    world.rate("a", -1)
    assert world.curate().num_withdrawn == 1
    assert world.samples() == {"a": ("Role: a", False)}
    world.rate("a", 1)
    world.curate()
    assert world.samples() == {"a": ("Role: a", True)}


def test_a_late_correction_replaces_the_accepted_answer(world: World) -> None:
    world.log("a")
    world.rate("a", 1)
    world.curate()
    world.rate("a", -1, corrected="Role: much better")
    report = world.curate()
    assert (report.num_added, report.num_withdrawn) == (1, 1)
    with world.database.read() as session:
        rows = session.exec(select(TrainingData)).all()
    assert {(row.target_output, row.source, row.is_selected) for row in rows} == {
        ("Role: a", "accepted", False),
        ("Role: much better", "corrected", True),
    }


def test_failed_and_shadow_answers_are_never_learned(world: World) -> None:
    world.log("failed", error="timeout")
    world.log("shadow", role="shadow")
    for name in ("failed", "shadow"):
        world.rate(name, 1)
    assert world.curate().counts["with feedback"] == 0


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\u202eabc", "مرحبا 👋"])
def test_odd_texts_are_handled(world: World, text: str) -> None:
    world.log("odd", input_text=text)
    world.rate("odd", 1)
    assert world.curate().num_added == 1


def test_an_empty_installation_is_no_error(world: World) -> None:
    assert world.curate().num_added == 0


def records(built: BuiltDataset) -> list[dict[str, Any]]:
    with built.train_file.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def fill(world: World, num: int = 30) -> None:
    for i in range(num):
        world.log(f"n{i}")
        world.rate(f"n{i}", 1, corrected=f"Role: fixed {i}" if i % 3 == 0 else None)
    world.curate()


def test_a_dataset_is_chatml_with_both_sides_and_its_lineage(world: World) -> None:
    fill(world)
    built = world.build("one")
    assert built.num_samples + built.num_test == 30
    assert built.num_validation > 0
    record = records(built)[0]
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"]
    assert record["messages"][0]["content"].startswith("Convert to professional prompt: write a")
    assert {record["weight"] for record in records(built)} == {1.0, 2.0}
    with world.database.write() as session:
        versions.register(
            session,
            version="v1",
            workload="default",
            base_model="embedded",
            adapter_digest="d",
            recipe="tiny_cpu",
            now=NOW,
            training_dataset_id=built.dataset_id,
        )
    with world.database.read() as session:
        assert len(lineage.interactions_of(session, "v1")) == 30
        assert lineage.versions_of(session, "n3") == ["v1"]


def test_the_same_samples_are_the_same_dataset(world: World) -> None:
    fill(world, 5)
    one, two = world.build("one"), world.build("two")
    assert (one.digest, one.dataset_id) == (two.digest, two.dataset_id)
    assert world.store.fetch(one.digest).is_dir()


def test_rehearsal_is_merged_at_its_ratio(world: World, tmp_path: Path) -> None:
    fill(world, 20)
    path = tmp_path / "rehearsal.jsonl"
    # What ends a line elsewhere may stand in a text here.
    said = [("user", "q\u2028\x85r"), ("assistant", "a")]
    record = {"messages": [{"role": role, "content": text} for role, text in said]}
    path.write_text("\n".join([json.dumps(record, ensure_ascii=False)] * 50), encoding="utf-8")
    built = world.build("one", rehearsal_file=str(path), rehearsal_ratio=0.5)
    assert built.num_rehearsal == round(built.num_train * 0.5)
    found = [record["source"] for record in records(built)]
    assert found.count("rehearsal") == built.num_rehearsal


@pytest.mark.parametrize("text", ["{", '{"messages": []}', '{"messages": [{"role": "user"}]}'])
def test_an_unfit_rehearsal_file_names_its_line(world: World, tmp_path: Path, text: str) -> None:
    fill(world, 20)
    path = tmp_path / "rehearsal.jsonl"
    path.write_text(text)
    with pytest.raises(SettingsError, match="line 1"):
        world.build("one", rehearsal_file=str(path))


def test_datasets_load_with_the_datasets_library(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    fill(world, 10)
    built = world.build("one")
    loaded = datasets.load_dataset(
        "json", data_files=str(built.train_file), split="train", cache_dir=str(tmp_path / "hf")
    )
    assert len(loaded) == built.num_train


def reviews(world: World) -> dict[str, tuple[str, str]]:
    with world.database.read() as session:
        rows = session.exec(select(ReviewItem)).all()
    return {row.interaction_id: (row.reason, row.state) for row in rows}


def test_what_moderation_finds_waits_for_a_reviewer_who_can_let_it_pass(world: World) -> None:
    world.log("fine")
    world.log("rude", structured_prompt="Role: you are a piece of sh1t")
    for name in ("fine", "rude"):
        world.rate(name, 1)
    assert world.curate().num_held == 1
    assert set(world.samples()) == {"fine"}
    assert reviews(world) == {"rude": ("moderation: the word 'sh1t'", "pending")}
    with world.database.write() as session:
        item = session.exec(select(ReviewItem)).one()
        item.state = "accepted"
        session.add(item)
    assert world.curate().num_added == 1
    assert set(world.samples()) == {"fine", "rude"}


def test_no_personal_data_reaches_a_dataset(world: World) -> None:
    world.log(
        "chat",
        messages=[{"role": "user", "content": "I am bob@example.com"}],
        structured_prompt="Hello bob@example.com, call 050 123 4567",
    )
    world.log("prompt", input_text="write to +966 50 123 4567")
    world.log("fixed")
    for name in ("chat", "prompt"):
        world.rate(name, 1)
    world.rate("fixed", -1, corrected="Role: reach amy@example.com")
    assert world.curate().num_added == 3
    built = world.build("one")
    for path in built.folder.rglob("*.jsonl"):
        text = path.read_text(encoding="utf-8")
        assert "@example.com" not in text
        assert "4567" not in text


def test_near_duplicates_are_dropped_within_a_batch_and_against_the_past(world: World) -> None:
    text = " ".join(f"word{i}" for i in range(40))
    for name in ("a", "b", "c"):
        world.log(name, input_text=text.replace("word7", name), structured_prompt="Role: same")
    for name in ("a", "b"):
        world.rate(name, 1)
    assert world.curate().num_added == 1
    world.rate("c", 1)
    report = world.curate()
    assert (report.counts["not curated before"], report.num_added) == (2, 0)


def test_batches_are_compared_with_each_other_even_in_a_dry_run(world: World) -> None:
    text = " ".join(f"word{i}" for i in range(40))
    for name in ("a", "b", "c"):
        world.log(name, input_text=text.replace("word7", name), structured_prompt="Role: same")
        world.rate(name, 1)
    settings = CurationSettings(batch_rows=1)
    for dry_run in (True, False):
        report = curate(
            world.database,
            workload="default",
            settings=settings,
            keyring=KEYRING,
            clock=lambda: world.now,
            new_id=world.new_id,
            dry_run=dry_run,
        )
        assert report.num_added == 1


def test_a_pass_that_is_interrupted_goes_on_where_it_stopped(world: World) -> None:
    for i in range(6):
        world.log(f"n{i}")
        world.rate(f"n{i}", 1)
    left = iter(range(4))

    def failing() -> str:
        if next(left, None) is None:
            raise OSError("killed")
        return world.new_id()

    def attempt(new_id: Callable[[], str]) -> CurationReport:
        return curate(
            world.database,
            workload="default",
            settings=CurationSettings(batch_rows=2),
            keyring=KEYRING,
            clock=lambda: world.now,
            new_id=new_id,
        )

    with pytest.raises(OSError, match="killed"):
        attempt(failing)
    assert 0 < len(world.samples()) < 6
    attempt(world.new_id)
    assert len(world.samples()) == 6


def test_feedback_from_the_future_does_not_hide_what_comes_before_it(world: World) -> None:
    world.log("early")
    world.rate("early", 1)
    world.now -= timedelta(days=1)
    world.curate()
    world.log("late")
    world.rate("late", 1)
    world.curate()
    assert set(world.samples()) == {"early", "late"}


def test_erasing_an_interaction_takes_its_sample_and_signature_along(world: World) -> None:
    world.log("a", input_text=" ".join(f"word{i}" for i in range(40)))
    world.rate("a", 1)
    world.curate()
    with world.database.write() as session:
        assert len(session.exec(select(CuratedSignature)).all()) == 1
        session.connection().exec_driver_sql("DELETE FROM user_interactions")
    with world.database.read() as session:
        assert session.exec(select(CuratedSignature)).all() == []
