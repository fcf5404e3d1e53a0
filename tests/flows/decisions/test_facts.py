from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from flows.decisions.facts import gather
from registry import deployment, interactions, runs
from registry.crypto import Keyring
from registry.db import Database, open_database
from registry.interactions import Feedback, Interaction
from registry.settings import Settings

NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    found = open_database(database_url)
    with found.write() as session:
        deployment.add_workload(session, "default", now=NOW)
    yield found
    found.close()


def log(database: Database, name: str, *, hours_ago: float, quality: float, thumb: int) -> None:
    at = NOW - timedelta(hours=hours_ago)
    with database.write() as session:
        interactions.log(
            session,
            [
                Interaction(
                    id=name,
                    created_at=at,
                    input_text="a",
                    structured_prompt="b",
                    model_output="b",
                    quality_score=quality,
                )
            ],
            keyring=Keyring(bytes(32)),
        )
        interactions.add_feedback(
            session,
            Feedback(interaction_id=name, thumb=thumb),
            now=at,
            new_id=lambda: f"event-{name}",
        )


def test_a_blank_installation_has_no_facts(database: Database) -> None:
    with database.read() as session:
        facts = gather(session, workload="default", settings=Settings(), now=NOW)
    assert facts.hours_since_training is None
    assert facts.hours_since_schedule is None
    assert facts.window.num_interactions == 0


def test_windows_and_new_samples_are_counted_where_they_belong(database: Database) -> None:
    log(database, "old", hours_ago=60, quality=0.9, thumb=1)
    log(database, "before", hours_ago=30, quality=0.8, thumb=1)
    log(database, "now", hours_ago=2, quality=0.6, thumb=1)
    log(database, "disliked", hours_ago=1, quality=0.9, thumb=-1)
    with database.write() as session:
        runs.start(
            session,
            run_id="r",
            workload="default",
            trigger="forced",
            now=NOW - timedelta(hours=40),
        )
        runs.finish(session, "r", status="succeeded", reason="", now=NOW - timedelta(hours=39))
    with database.read() as session:
        facts = gather(session, workload="default", settings=Settings(), now=NOW)
    assert facts.hours_since_training == pytest.approx(40)
    assert facts.num_new_samples == 1
    assert (facts.window.num_interactions, facts.previous_window.num_interactions) == (2, 1)
    assert facts.window.avg_quality == pytest.approx(0.75)
    assert not facts.is_training


def test_a_failed_training_cools_down_but_teaches_nothing(database: Database) -> None:
    log(database, "a", hours_ago=5, quality=0.9, thumb=1)
    with database.write() as session:
        runs.start(
            session, run_id="r", workload="default", trigger="forced", now=NOW - timedelta(hours=1)
        )
        runs.finish(session, "r", status="failed", reason="", now=NOW)
    with database.read() as session:
        facts = gather(session, workload="default", settings=Settings(), now=NOW)
    assert facts.hours_since_training == pytest.approx(1)
    assert facts.hours_since_schedule == pytest.approx(5)
    assert facts.num_new_samples == 1
