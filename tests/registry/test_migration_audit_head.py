"""The audit chain goes on over the migration that gave it a head, both ways."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from registry import audit, deployment
from registry.audit_check import check
from registry.audit_digest import GENESIS, digest_of
from registry.crypto import Keyring
from registry.db import Database
from registry.key_rotation import check_keys
from registry.models import AuditEntry
from tests.registry.test_migrations import migrate

KEYRING = Keyring(bytes(32))
KEY = KEYRING.derive(deployment.AUDIT_PURPOSE)
NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)
BEFORE, AFTER = "0006", "0007"


@pytest.fixture
def old(tmp_path: Path) -> Database:
    """A database of the time before, with two entries in its audit log and a period."""
    database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    database.upgrade()
    with database.write() as session:
        migrate(session.connection(), BEFORE)
        previous = GENESIS
        for sequence in (1, 2):
            entry = AuditEntry(
                sequence=sequence,
                at=NOW,
                actor="test",
                action="deploy",
                subject="workload:default",
                details={"share": 0.0},
                previous_digest=previous,
                digest="",
            )
            previous = digest_of(entry, KEY)
            session.connection().execute(
                text(
                    "INSERT INTO audit_log VALUES (:sequence, '2026-01-14 12:00:00.000000', 'test',"
                    " 'deploy', 'workload:default', '{\"share\": 0.0}', :before, :digest)"
                ),
                {"sequence": sequence, "before": entry.previous_digest, "digest": previous},
            )
        for statement in (
            "INSERT INTO workloads (name, created_at) VALUES ('default', '2026-01-01')",
            "INSERT INTO production_history (id, workload, generation, share, reason, actor,"
            " from_at) VALUES ('p', 'default', 1, 0, 'why', 'test', '2026-01-01')",
        ):
            session.connection().execute(text(statement))
    return database


def test_the_chain_goes_on_where_it_stood(old: Database) -> None:
    with old.write() as session:
        migrate(session.connection(), AFTER)
    with old.read() as session:
        assert check(session, keys=[KEY]).fault is None
        assert session.connection().execute(
            text("SELECT action, reason FROM production_history")
        ).one() == (None, "why")
    with old.write() as session:
        audit.record(session, key=KEY, actor="t", action="a", subject="s", now=NOW)
    with old.read() as session:
        found = check(session, keys=[KEY])
    assert (found.num_entries, found.fault) == (3, None)


def test_a_truncation_of_what_was_before_is_found_after_the_next_entry(old: Database) -> None:
    with old.write() as session:
        migrate(session.connection(), AFTER)
    with old.write() as session:
        audit.record(session, key=KEY, actor="t", action="a", subject="s", now=NOW)
        session.connection().execute(text("DELETE FROM audit_log WHERE sequence > 1"))
    with old.read() as session:
        fault = check(session, keys=[KEY]).fault
    assert fault is not None
    assert fault.sequence == 2


def test_a_truncation_of_what_was_before_is_found_once_a_program_has_had_its_keys(
    old: Database,
) -> None:
    with old.write() as session:
        migrate(session.connection(), AFTER)
        # As programs left it that listed their keys, and did not seal.
        session.connection().execute(
            text(
                "INSERT INTO encryption_keys (kind, id, created_at)"
                " VALUES ('master', :id, '2026-01-01 00:00:00.000000')"
            ),
            {"id": KEYRING.key_id},
        )
    old.upgrade()
    check_keys(old, KEYRING, now=NOW)
    with old.write() as session:
        assert check(session, keys=[KEY]).fault is None
        digest = session.get_one(AuditEntry, 1).digest
        for statement in (
            "DELETE FROM audit_log WHERE sequence > 1",
            f"UPDATE audit_head SET sequence = 1, digest = '{digest}', seal = NULL, key_id = NULL",
        ):
            session.connection().execute(text(statement))
    old.upgrade()
    with old.read() as session:
        fault = check(session, keys=[KEY]).fault
    assert fault is not None
    assert fault.what.startswith("cannot be ruled out")


def test_the_way_back_keeps_entries_and_periods(old: Database) -> None:
    with old.write() as session:
        migrate(session.connection(), AFTER)
    with old.write() as session:
        migrate(session.connection(), BEFORE)
    with old.read() as session:
        connection = session.connection()
        assert connection.execute(text("SELECT count(*) FROM audit_log")).scalar() == 2
        assert connection.execute(text("SELECT id FROM production_history")).all() == [("p",)]
        assert "key_id" not in connection.execute(text("SELECT * FROM audit_log")).keys()  # noqa: SIM118
