"""What the triggers watch: sealed prompts drift like open ones, and scores of one scorer alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.decisions.change import Drift
from flows.decisions.facts import gather
from registry import deployment, interactions, scorers
from registry.clock import new_id
from registry.crypto import Keyring
from registry.db import Database, open_database
from registry.deployment import Act
from registry.interactions import Interaction
from registry.settings import Settings

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
OPEN, SEALING = Keyring(bytes(32)), Keyring(bytes(32)).with_texts(True)


def open_at(path: Path) -> Database:
    found = open_database(f"sqlite:///{path}")
    with found.write() as session:
        deployment.add_workload(session, "default", now=NOW)
    return found


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = open_at(tmp_path / "registry.db")
    yield found
    found.close()


def prompt(row_id: str, *, days_ago: float, text: str = "a", **more: object) -> Interaction:
    return Interaction(
        id=row_id,
        created_at=NOW - timedelta(days=days_ago),
        input_text=text,
        structured_prompt="b",
        model_output="b",
        target_tool="email",
        language="en",
        **more,  # type: ignore[arg-type]
    )


def drift_of(database: Database, keyring: Keyring) -> Drift:
    """Short prompts for a month, and long ones in the last week."""
    rows = [
        prompt(
            f"{day}-{number}",
            days_ago=day,
            text="x" * (200 if day < 7 and number % 2 else 15),
        )
        for day in range(40)
        for number in range(10)
    ]
    with database.write() as session:
        interactions.log(session, rows, keyring=keyring)
    with database.read() as session:
        found = gather(
            session, workload="default", settings=Settings(), now=NOW, keyring=keyring
        ).drift
    assert found is not None
    return found


def test_sealed_prompts_drift_as_open_ones_do(tmp_path: Path) -> None:
    found = []
    for name, keyring in (("open", OPEN), ("sealed", SEALING)):
        database = open_at(tmp_path / f"{name}.db")
        found.append(drift_of(database, keyring))
        if keyring is SEALING:
            with database.read() as session:
                texts = session.connection().exec_driver_sql(
                    "SELECT count(*) FROM user_interactions WHERE input_text LIKE 'x%'"
                )
                assert texts.scalar() == 0
        database.close()
    assert found[0] == found[1]
    assert found[0].psi > 0.2
    assert found[0].most.startswith("other: 0.")  # nobody had asked at such length


def test_scores_are_compared_at_an_equal_scorer_version_alone(database: Database) -> None:
    """A new scorer that is stricter must not look like a fall of quality."""
    act = Act("test", "fitted", NOW, OPEN, new_id)
    with database.write() as session:
        scorers.add(session, act, version="strict", workload="default", digest="d" * 64, metrics={})
        scorers.activate(session, act, "strict")
        interactions.log(
            session,
            [
                prompt(f"{scorer}-{days}-{n}", days_ago=days, quality_score=score,
                       scorer_version=scorer)
                for scorer, days, score in (
                    ("rule", 1.5, 0.9), ("rule", 0.5, 0.9), ("strict", 1.5, 0.5),
                    ("strict", 0.5, 0.5),
                )
                for n in range(60)
            ],
            keyring=OPEN,
        )  # fmt: skip
    with database.read() as session:
        facts = gather(session, workload="default", settings=Settings(), now=NOW)
    assert facts.previous_window.avg_quality == pytest.approx(0.5)
    assert facts.window.avg_quality == pytest.approx(0.5)
    with database.write() as session:
        scorers.deactivate(session, act, workload="default")
    with database.read() as session:
        facts = gather(session, workload="default", settings=Settings(), now=NOW)
    assert facts.window.avg_quality == pytest.approx(0.9)
