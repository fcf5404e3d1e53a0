"""Days that are over: read once, kept, and read again only when more arrives."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import delete
from sqlmodel import col, select

from registry import daily, deployment, interactions, scorers
from registry.crypto import Keyring
from registry.daily import DAY, Day
from registry.db import Database, open_database
from registry.deployment import Act
from registry.errors import KeyringError
from registry.interactions import Interaction
from registry.models import UsageDay, UserInteraction

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
KEYRING = Keyring(bytes(32))
EVERYTHING = {"workload": "default", "since": FIRST, "until": FIRST + 7 * DAY}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    found = open_database(database_url)
    with found.write() as session:
        deployment.add_workload(session, "default", now=FIRST)
    yield found
    found.close()


def log(
    database: Database,
    name: str,
    *,
    day: float,
    quality: float | None = 0.5,
    scorer: str | None = "rules-1",
    text: str = "a prompt",
    keyring: Keyring = KEYRING,
    role: str = "default",
) -> None:
    row = Interaction(
        id=name,
        created_at=FIRST + timedelta(days=day),
        input_text=text,
        structured_prompt="b",
        model_output="b",
        target_tool="email",
        language="en",
        quality_score=quality,
        scorer_version=scorer,
        role=role,
    )
    with database.write() as session:
        interactions.log(session, [row], keyring=keyring)


def days(database: Database, keyring: Keyring | None = KEYRING) -> list[Day]:
    with database.read() as session:
        return daily.days(session, **EVERYTHING, keyring=keyring)


def test_a_day_holds_its_answers_from_midnight_to_midnight(database: Database) -> None:
    log(database, "last of the first", day=0.999)
    log(database, "first of the second", day=1, quality=0.7)
    log(database, "nobody saw it", day=1.1, role="shadow")
    log(database, "by another", day=1.2, quality=0.9, scorer="scorer-1", text="x" * 25)
    log(database, "failed", day=1.3, quality=None, scorer=None)
    assert days(database) == [
        Day(date(2026, 1, 1), 1, {"rules-1": (1, 0.5)}, {"email|en|0": 1}),
        Day(
            date(2026, 1, 2),
            3,
            {"rules-1": (1, 0.7), "scorer-1": (1, 0.9)},
            {"email|en|0": 2, "email|en|1": 1},
        ),
    ]


def test_kept_days_say_the_same_as_their_rows(database: Database) -> None:
    for number in range(30):
        log(database, str(number), day=number / 6, quality=number / 30, text="x" * number * 9)
    before = days(database)
    assert daily.keep(database, **EVERYTHING) == 5
    assert daily.keep(database, **EVERYTHING) == 0
    assert days(database) == before


def test_what_arrives_late_counts_and_what_goes_has_been(database: Database) -> None:
    log(database, "a", day=0.5)
    daily.keep(database, **EVERYTHING)
    log(database, "late", day=0.6, quality=0.9)
    assert days(database)[0].quality["rules-1"] == (2, pytest.approx(1.4))
    assert daily.keep(database, **EVERYTHING) == 1
    with database.write() as session:
        session.connection().execute(delete(UserInteraction))
    assert daily.keep(database, **EVERYTHING) == 0
    assert days(database)[0].total == 2


def test_sealed_prompts_are_sorted_by_their_own_length_and_opened_once(
    database: Database,
) -> None:
    sealing = KEYRING.with_texts(True)
    log(database, "short", day=0.1, text="x" * 19, keyring=sealing)
    log(database, "long", day=0.1, text="x" * 100, keyring=sealing)
    log(database, "plain", day=0.1, text="x" * 100)
    with pytest.raises(KeyringError, match="without a keyring"):
        days(database, keyring=None)
    assert days(database)[0].prompts == {"email|en|0": 1, "email|en|3": 2}
    daily.keep(database, **EVERYTHING, keyring=KEYRING)
    assert days(database, keyring=None)[0].prompts == {"email|en|0": 1, "email|en|3": 2}
    with database.read() as session:
        assert "x" not in str(session.exec(select(col(UsageDay.prompts))).all())


def test_quality_is_compared_among_the_answers_of_one_scorer(database: Database) -> None:
    log(database, "by rule", day=0.1, quality=0.5)
    log(database, "by the old", day=0.1, quality=0.9, scorer="old")
    log(database, "by the new", day=1.1, quality=0.1, scorer="new")

    def means(least: int = 1) -> list[float]:
        with database.read() as session:
            found = daily.days(session, **EVERYTHING)
            return daily.mean_quality(session, found, workload="default", least=least)

    def fit(version: str) -> None:
        with database.write() as session:
            act = Act(actor="test", reason="", now=FIRST, new_id=lambda: version, keyring=KEYRING)
            scorers.add(
                session, act, version=version, workload="default", digest=version, metrics={}
            )

    for version in ("old", "new"):
        fit(version)
    assert means() == [0.5]
    assert means(least=2) == []
    with database.write() as session:
        act = Act(actor="test", reason="", now=FIRST, new_id=lambda: "x", keyring=KEYRING)
        scorers.activate(session, act, "new")
    assert means() == [0.1]


def test_a_workload_has_days_of_its_own(database: Database) -> None:
    log(database, "a", day=0.1)
    daily.keep(database, **EVERYTHING)
    with database.read() as session:
        found = daily.days(session, workload="other", since=FIRST, until=FIRST + DAY)
    assert found == []
