"""Names lie in one place: the record tells them while they are there, and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from registry import acts, audit, people
from registry.clock import new_id
from registry.crypto import Keyring
from registry.db import Database, open_database
from registry.deployment import Act

NOW = datetime(2026, 1, 14, tzinfo=UTC)
KEYRING = Keyring(bytes(32))
NAME = "ruth@example.org"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    found = open_database(database_url)
    yield found
    found.close()


def act_as(database: Database, person: str | None) -> None:
    actor = "api:admin" if person is None else people.actor(person, KEYRING)
    with database.write() as session:
        act = Act(actor, "because", NOW, KEYRING, new_id, person)
        acts.record(session, act, action="promote", subject="workload:default")


def shown(database: Database, actor: str | None = None) -> list[str]:
    wanted = None if actor is None else people.written_as(actor, KEYRING)
    with database.read() as session:
        rows = audit.entries(session, limit=9, actors=wanted)
        people.reveal(session, rows, KEYRING)
        assert not session.dirty
        return [row.actor for row in rows]


def stored(database: Database) -> str:
    with database.read() as session:
        return str(session.connection().exec_driver_sql("SELECT * FROM audit_log").all())


def test_who_acted_is_shown_by_name_and_kept_by_pseudonym(database: Database) -> None:
    act_as(database, NAME)
    act_as(database, NAME)
    act_as(database, None)
    assert shown(database) == ["api:admin", f"api:{NAME}", f"api:{NAME}"]
    assert shown(database, f"api:{NAME}") == [f"api:{NAME}"] * 2
    assert shown(database, "api:admin") == ["api:admin"]
    assert NAME not in stored(database)


def test_without_the_name_it_is_still_told_that_one_person_did_it(database: Database) -> None:
    act_as(database, NAME)
    with database.write() as session:
        assert people.forget(session, NAME, KEYRING) == 1
    (left,) = shown(database)
    assert left == f"api:{people.actor(NAME, KEYRING)[4:12]}…"
    assert shown(database, f"api:{NAME}") == [left]
    with database.read() as session:
        assert audit.verify(session, key=KEYRING.derive("audit")) is None
