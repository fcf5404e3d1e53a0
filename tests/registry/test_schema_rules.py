"""Keys, defaults and rules of the core tables, as the database itself has them."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from registry.db import Database

MINIMAL = (
    "INSERT INTO users (id, created_at) VALUES ('u', '2026-01-01')",
    "INSERT INTO user_interactions (id, user_id, input_text, structured_prompt, model_output,"
    " created_at, updated_at) VALUES ('i', 'u', 'a', 'b', 'c', '2026-01-01', '2026-01-01')",
    "INSERT INTO training_data (id, source_interaction_id, input_prompt, target_output, source,"
    " content_hash, cluster_id, split, created_at)"
    " VALUES ('t', 'i', 'a', 'b', 'accepted', 'h', 'h', 'train', '2026-01-01')",
)


def run(database: Database, *statements: str) -> None:
    with database.write() as session:
        for statement in statements:
            session.connection().execute(text(statement))


def one(database: Database, query: str) -> tuple[object, ...] | None:
    with database.read() as session:
        found = session.connection().execute(text(query)).first()
        return None if found is None else tuple(found)


def test_what_is_not_given_has_its_default(database: Database) -> None:
    run(database, *MINIMAL)
    assert one(database, "SELECT is_curated, is_selected FROM training_data") == (False, False)
    row = one(database, "SELECT workload, source, role FROM user_interactions")
    assert row == ("default", "served", "default")
    assert one(database, "SELECT consent FROM users") == ("granted",)


def test_a_sample_goes_with_its_interaction(database: Database) -> None:
    run(database, *MINIMAL, "DELETE FROM user_interactions")
    assert one(database, "SELECT id FROM training_data") is None


def test_an_interaction_without_its_user_is_nobodys(database: Database) -> None:
    run(database, *MINIMAL, "DELETE FROM users")
    assert one(database, "SELECT id, user_id FROM user_interactions") == ("i", None)


def test_renaming_reaches_whatever_refers_to_it(database: Database) -> None:
    run(
        database,
        *MINIMAL,
        "UPDATE users SET id = 'v'",
        "UPDATE user_interactions SET id = 'j'",
    )
    assert one(database, "SELECT id, user_id FROM user_interactions") == ("j", "v")
    assert one(database, "SELECT source_interaction_id FROM training_data") == ("j",)


@pytest.mark.parametrize("table", ["user_interactions", "training_data"])
def test_nothing_refers_to_what_is_not_there(database: Database, table: str) -> None:
    column = "user_id" if table == "user_interactions" else "source_interaction_id"
    with pytest.raises(IntegrityError):
        run(database, *MINIMAL, f"UPDATE {table} SET {column} = 'nobody'")
