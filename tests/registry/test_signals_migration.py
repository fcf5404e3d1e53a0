"""Scorers and reviews come and go without touching what people have said."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from registry.db import Database
from tests.registry.test_migrations import migrate

BEFORE, AFTER = "0004", "0009"


def test_feedback_survives_the_way_up_and_down(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    database.upgrade()
    with database.write() as session:
        connection = session.connection()
        migrate(connection, BEFORE)
        for statement in (
            "INSERT INTO workloads (name, created_at) VALUES ('default', '2026-01-01')",
            "INSERT INTO user_interactions (id, input_text, structured_prompt, model_output,"
            " created_at, updated_at) VALUES ('i', 'a', 'b', 'c', '2026-01-01', '2026-01-01')",
            "INSERT INTO feedback_events (id, interaction_id, score, created_at)"
            " VALUES ('f', 'i', 5, '2026-01-01')",
        ):
            connection.execute(text(statement))
    with database.write() as session:
        migrate(session.connection(), AFTER)
        found = session.connection().execute(
            text("SELECT score, rater_id, is_review FROM feedback_events")
        )
        assert found.one() == (5, None, False)
        session.connection().execute(
            text(
                "INSERT INTO review_items (id, interaction_id, reason, created_at)"
                " VALUES ('r', 'i', 'quarantine: x', '2026-01-01')"
            )
        )
        state = session.connection().execute(text("SELECT state FROM review_items")).scalar()
        assert state == "pending"
    with database.write() as session:
        migrate(session.connection(), BEFORE)
        assert session.connection().execute(text("SELECT score FROM feedback_events")).all() == [
            (5,)
        ]
    database.close()
