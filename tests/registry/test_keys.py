"""API keys: kept as hashes, found by prefix, ended for good."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from registry import audit, keys
from registry.clock import new_id, utc_now
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import AUDIT_PURPOSE, Act
from registry.errors import ConflictError, NotFoundError

KEYRING = Keyring(b"k" * 32)


def act() -> Act:
    return Act("test", "a test", utc_now(), KEYRING, new_id)


def make(database: Database, **facts: object) -> keys.NewKey:
    with database.write() as session:
        return keys.create(session, act(), **({"name": "app", "role": "user"} | facts))  # type: ignore[arg-type]


def is_valid(database: Database, shown: str, *, keyring: Keyring = KEYRING) -> bool:
    prefix = keys.prefix_of(shown)
    assert prefix is not None
    with database.read() as session:
        found = keys.find(session, prefix)
        return found is not None and keys.is_valid(found, shown, keyring=keyring, now=utc_now())


def test_a_key_is_valid_and_its_neighbours_are_not(database: Database) -> None:
    made = make(database)
    assert is_valid(database, made.text)
    assert not is_valid(database, made.text + "x")
    assert not is_valid(database, f"klm_{made.prefix}_guess")


def test_the_database_alone_opens_nothing(database: Database) -> None:
    made = make(database)
    with database.read() as session:
        rows = session.connection().execute(text("SELECT * FROM api_keys")).all()
    assert made.text.split("_", 2)[2] not in str(rows)
    assert not is_valid(database, made.text, keyring=Keyring(b"x" * 32))


def test_a_key_ends_when_its_time_is_over(database: Database) -> None:
    assert is_valid(database, make(database, lifetime=timedelta(hours=1)).text)
    assert not is_valid(database, make(database, lifetime=timedelta(seconds=-1)).text)


def test_a_key_is_revoked_once(database: Database) -> None:
    made = make(database)
    with database.write() as session:
        keys.revoke(session, act(), made.prefix)
    assert not is_valid(database, made.text)
    with pytest.raises(ConflictError, match="was revoked"), database.write() as session:
        keys.revoke(session, act(), made.prefix)
    with pytest.raises(NotFoundError, match="no API key"), database.write() as session:
        keys.revoke(session, act(), "gone")


def test_keys_leave_their_trace_in_the_audit_log(database: Database) -> None:
    made = make(database, role="admin")
    with database.read() as session:
        assert audit.verify(session, key=KEYRING.derive(AUDIT_PURPOSE)) is None
        rows = session.connection().execute(text("SELECT action, subject FROM audit_log")).all()
    assert [tuple(row) for row in rows] == [("create_key", f"key:{made.prefix}")]


@pytest.mark.parametrize("shown", ["", "klm", "klm_", "klm__x", "klm_x_", "sk-123", "klm-x-y"])
def test_what_is_no_key_has_no_prefix(shown: str) -> None:
    assert keys.prefix_of(shown) is None
