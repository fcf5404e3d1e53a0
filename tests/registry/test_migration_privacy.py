"""Keys, consent and erasures come to an older database without taking anything away."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from registry.db import Database
from tests.registry.test_migrations import migrate

BEFORE, AFTER = "0004", "0006"


@pytest.fixture
def old(tmp_path: Path) -> Database:
    """A database with a user, an answer and feedback, of the time before consent."""
    database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    database.upgrade()
    with database.write() as session:
        migrate(session.connection(), BEFORE)
        for statement in (
            "INSERT INTO workloads (name, created_at) VALUES ('default', '2026-01-01')",
            "INSERT INTO users (id, created_at) VALUES ('u', '2026-01-01')",
            "INSERT INTO user_interactions (id, user_id, input_text, structured_prompt,"
            " model_output, created_at, updated_at)"
            " VALUES ('i', 'u', 'a', 'b', 'c', '2026-01-01', '2026-01-01')",
            "INSERT INTO feedback_events (id, interaction_id, score, created_at)"
            " VALUES ('f', 'i', 5, '2026-01-01')",
        ):
            session.connection().execute(text(statement))
    return database


def test_those_who_were_not_asked_have_granted_and_keep_everything(old: Database) -> None:
    with old.write() as session:
        migrate(session.connection(), AFTER)
    with old.read() as session:
        connection = session.connection()
        assert connection.execute(text("SELECT id, consent FROM users")).all() == [("u", "granted")]
        assert connection.execute(text("SELECT user_id FROM user_interactions")).all() == [("u",)]
        assert connection.execute(text("SELECT id FROM feedback_events")).all() == [("f",)]


def test_the_way_back_keeps_users_answers_and_feedback(old: Database) -> None:
    for revision in (AFTER, BEFORE):
        with old.write() as session:
            migrate(session.connection(), revision)
    with old.read() as session:
        connection = session.connection()
        columns = connection.execute(text("SELECT * FROM users")).keys()
        assert "consent" not in columns
        assert connection.execute(text("SELECT user_id FROM user_interactions")).all() == [("u",)]
        assert connection.execute(text("SELECT id FROM feedback_events")).all() == [("f",)]
