"""The audit chain on both databases: whoever tampers with it is found, and writers queue up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from registry import audit, deployment
from registry.audit_check import Head, check
from registry.audit_digest import seal_of
from registry.crypto import Keyring
from registry.db import Database, open_database
from registry.errors import AuditError
from registry.key_rotation import check_keys
from tests.support.postgresql import Server

NOW = datetime(2026, 1, 14, 12, 30, 15, 123456, tzinfo=UTC)
KEYRING = Keyring(bytes(32))
KEY, OLD_KEY = KEYRING.derive(deployment.AUDIT_PURPOSE), b"o" * 32
EMPTIED = (
    "DELETE FROM audit_log",
    f"UPDATE audit_head SET sequence = 0, digest = '{audit.GENESIS}', key_id = NULL, seal = NULL",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        found = open_database(f"sqlite:///{tmp_path / 'audit.db'}")
        yield found
        found.close()
        return
    found = open_database(request.getfixturevalue("postgresql_url"))
    yield found
    found.close()


def write(database: Database, number: int, *, key: bytes = KEY, **details: Any) -> None:
    for index in range(number):
        with database.write() as session:
            audit.record(
                session,
                key=key,
                actor="test",
                action="act",
                subject=f"thing:{index}",
                now=NOW,
                details=details,
            )


def run(database: Database, *statements: str) -> None:
    with database.write() as session:
        for statement in statements:
            session.connection().execute(text(statement))


def complaint(database: Database, *, anchor: Head | None = None) -> tuple[int, str] | None:
    with database.read() as session:
        fault = check(session, keys=[KEY], anchor=anchor).fault
    return None if fault is None else (fault.sequence, fault.what)


def head(database: Database) -> Head:
    with database.read() as session:
        return audit.head(session, now=NOW)


def test_an_untouched_chain_is_sound(database: Database) -> None:
    assert complaint(database) is None
    write(database, 4)
    assert complaint(database) is None
    assert complaint(database, anchor=head(database)) is None


@pytest.mark.parametrize(
    "change",
    [
        "at = '2026-01-14 12:30:15.123457'",
        "actor = 'nobody'",
        "action = 'nothing'",
        "subject = 'thing:9'",
        'details = \'{"reason": "none"}\'',
        "digest = 'ff'",
        "key_id = NULL",
        "key_id = 'ffffffff'",
    ],
)
def test_an_edit_is_found(database: Database, change: str) -> None:
    write(database, 4, reason="good")
    run(database, f"UPDATE audit_log SET {change} WHERE sequence = 3")
    found = complaint(database)
    assert found is not None
    assert found[0] == 3


def test_a_deletion_is_found(database: Database) -> None:
    write(database, 4)
    run(database, "DELETE FROM audit_log WHERE sequence = 2")
    assert complaint(database) == (2, "entry 2 is missing: deleted, or given another number")


def test_a_deletion_with_the_rest_renumbered_is_found(database: Database) -> None:
    write(database, 4)
    run(
        database,
        "DELETE FROM audit_log WHERE sequence = 2",
        "UPDATE audit_log SET sequence = 2 WHERE sequence = 3",
        "UPDATE audit_log SET sequence = 3 WHERE sequence = 4",
    )
    found = complaint(database)
    assert found is not None
    assert found[0] == 2


def test_a_reordering_is_found(database: Database) -> None:
    write(database, 4)
    run(
        database,
        "UPDATE audit_log SET sequence = 99 WHERE sequence = 2",
        "UPDATE audit_log SET sequence = 2 WHERE sequence = 3",
        "UPDATE audit_log SET sequence = 3 WHERE sequence = 99",
    )
    found = complaint(database)
    assert found is not None
    assert found[0] == 2


def test_a_truncation_is_found_by_the_head(database: Database) -> None:
    write(database, 4)
    run(database, "DELETE FROM audit_log WHERE sequence > 2")
    assert complaint(database) == (3, "is missing, and all up to 4: the chain was truncated")


@pytest.mark.parametrize(
    "cover_up",
    [
        "DELETE FROM audit_head",
        "UPDATE audit_head SET sequence = 2, digest = (SELECT digest FROM audit_log "
        "WHERE sequence = 2)",
        "UPDATE audit_head SET sequence = 2, seal = NULL, key_id = NULL, digest = "
        "(SELECT digest FROM audit_log WHERE sequence = 2)",
    ],
)
def test_a_truncation_with_a_forged_head_is_found(database: Database, cover_up: str) -> None:
    write(database, 4)
    run(database, "DELETE FROM audit_log WHERE sequence > 2", cover_up)
    found = complaint(database)
    assert found is not None
    assert found[0] == 3
    assert found[1].startswith("cannot be ruled out: the head of the chain was")


@pytest.mark.parametrize("seal", ["seal", "NULL", "'ff'"])
@pytest.mark.parametrize("list_kept", [True, False])
def test_no_later_entry_covers_a_truncation_up(
    database: Database, seal: str, list_kept: bool
) -> None:
    check_keys(database, KEYRING, now=NOW)
    write(database, 4)
    if not list_kept:
        run(database, "DELETE FROM encryption_keys")
    run(
        database,
        "DELETE FROM audit_log WHERE sequence > 2",
        f"UPDATE audit_head SET sequence = 2, seal = {seal}, digest = "
        "(SELECT digest FROM audit_log WHERE sequence = 2)",
    )
    write(database, 2)
    assert complaint(database) == (5, "cannot be ruled out: the head of the chain was altered")
    with pytest.raises(AuditError, match="not sealed"):
        head(database)


def test_a_log_that_was_emptied_is_found_before_and_after_the_next_entry(
    database: Database,
) -> None:
    check_keys(database, KEYRING, now=NOW)
    write(database, 5)
    run(database, *EMPTIED)
    assert complaint(database) == (1, "cannot be ruled out: the head of the chain was altered")
    check_keys(database, KEYRING, now=NOW)
    write(database, 1)
    assert complaint(database) == (2, "cannot be ruled out: the head of the chain was altered")


def test_a_log_emptied_with_the_list_of_keys_is_found_by_what_workloads_went_through(
    database: Database,
) -> None:
    check_keys(database, KEYRING, now=NOW)
    with database.write() as session:
        deployment.add_workload(session, "default", now=NOW)
    run(
        database,
        "UPDATE deployment_state SET generation = 2",
        *EMPTIED,
        "DELETE FROM encryption_keys",
    )
    assert complaint(database) is not None
    check_keys(database, KEYRING, now=NOW)
    assert complaint(database) is not None


def test_a_chain_is_sealed_from_its_beginning_by_the_first_program(database: Database) -> None:
    with pytest.raises(AuditError, match="not sealed"):
        head(database)
    assert complaint(database) is None
    check_keys(database, KEYRING, now=NOW)
    assert (complaint(database), head(database).sequence) == (None, 0)
    beginning = head(database)
    write(database, 2)
    assert complaint(database, anchor=beginning) is None


def test_a_truncation_with_an_old_head_put_back_takes_an_anchor_to_find(
    database: Database,
) -> None:
    write(database, 2)
    old = head(database)
    write(database, 2)
    anchor = Head.from_json(head(database).to_json())
    run(
        database,
        "DELETE FROM audit_log WHERE sequence > 2",
        f"UPDATE audit_head SET sequence = 2, digest = '{old.digest}', seal = '{old.seal}'",
    )
    assert complaint(database) is None
    assert complaint(database, anchor=old) is None
    found = complaint(database, anchor=anchor)
    assert found is not None
    assert found[0] == 3
    assert "anchored 2026-01-14 12:30 UTC: the chain was truncated" in found[1]


def test_a_chain_rewritten_with_the_key_takes_an_anchor_to_find(database: Database) -> None:
    write(database, 3)
    anchor = head(database)
    run(
        database,
        "DELETE FROM audit_log",
        f"UPDATE audit_head SET sequence = 0, digest = '{audit.GENESIS}', "
        f"seal = '{seal_of(0, audit.GENESIS, KEY)}'",
    )
    write(database, 3, reason="another story")
    assert complaint(database) is None
    found = complaint(database, anchor=anchor)
    assert found == (3, "is not the one that was anchored: the chain was rewritten")


def test_an_anchor_of_another_installation_is_refused(database: Database) -> None:
    write(database, 1)
    other = replace(head(database), sequence=7)
    with pytest.raises(AuditError, match="not from this installation"):
        complaint(database, anchor=other)
    with pytest.raises(AuditError, match="what 'kalimtak audit head' writes"):
        Head.from_json('{"sequence": "7"}')


def test_entries_are_sound_under_any_key_that_is_given(database: Database) -> None:
    write(database, 2, key=OLD_KEY)
    with database.read() as session:
        assert check(session, keys=[KEY, OLD_KEY]).fault is None
        fault = check(session, keys=[KEY]).fault
    assert fault is not None
    assert (fault.sequence, "not at hand" in fault.what) == (1, True)


def test_writers_at_once_make_one_chain(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write(database, 5), range(8)))
    with database.read() as session:
        found = check(session, keys=[KEY])
    assert (found.num_entries, found.fault) == (40, None)


def test_nothing_is_recorded_without_a_head(database: Database) -> None:
    write(database, 1)
    run(database, "DELETE FROM audit_head")
    with pytest.raises(AuditError, match="nothing was done"):
        write(database, 1)


def test_entries_are_listed_newest_first_and_by_what_they_say(database: Database) -> None:
    write(database, 5)
    with database.read() as session:

        def listed(**wanted: Any) -> list[int]:
            return [row.sequence for row in audit.entries(session, **wanted)]

        assert listed(limit=2) == [5, 4]
        assert listed(limit=2, before=4) == [3, 2]
        assert listed(limit=9, subject="thing:2") == [3]
        assert listed(limit=9, action="other") == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("name"), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, postgresql: Server) -> Iterator[list[Database]]:
    folder, url = tmp_path_factory.mktemp("both"), postgresql.create()
    found = [open_database(f"sqlite:///{folder / 'audit.db'}"), open_database(url)]
    yield found
    for database in found:
        database.close()
    postgresql.drop(url)


@settings(max_examples=40)
@given(value=JSON)
def test_whatever_the_details_are_the_database_gives_back_what_was_sealed(
    both: list[Database], value: Any
) -> None:
    for database in both:
        write(database, 1, value=value)
        assert complaint(database) is None
