"""Schema changes keep what people have left behind, on the way up and on the way down."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from registry import migrations
from registry.db import Database

BEFORE, AFTER = "0003", "0004"


def migrate(connection: Connection, revision: str) -> None:
    """Bring the schema to `revision`, whichever way that is."""
    config = Config()
    config.set_main_option("script_location", str(Path(next(iter(migrations.__path__)))))
    config.attributes["connection"] = connection
    current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    go = command.upgrade if (current or "") < revision else command.downgrade
    go(config, revision)


@pytest.fixture
def old(tmp_path: Path) -> Database:
    """A database of the time before answers came from elsewhere, with an answer and feedback."""
    database = Database(f"sqlite:///{tmp_path / 'old.db'}")
    database.upgrade()
    with database.write() as session:
        migrate(session.connection(), BEFORE)
        for statement in (
            "INSERT INTO workloads (name, created_at) VALUES ('default', '2026-01-01')",
            "INSERT INTO user_interactions (id, input_text, structured_prompt, model_output,"
            " created_at, updated_at) VALUES ('i', 'a', 'b', 'c', '2026-01-01', '2026-01-01')",
            "INSERT INTO feedback_events (id, interaction_id, score, created_at)"
            " VALUES ('f', 'i', 5, '2026-01-01')",
        ):
            session.connection().execute(text(statement))
    return database


def test_old_answers_count_as_served_here_and_keep_their_feedback(old: Database) -> None:
    with old.write() as session:
        migrate(session.connection(), AFTER)
    with old.read() as session:
        row = session.connection().execute(
            text("SELECT source, external_model FROM user_interactions")
        )
        assert row.one() == ("served", None)
        assert session.connection().execute(text("SELECT id FROM feedback_events")).all() == [
            ("f",)
        ]


def test_the_way_back_keeps_answers_and_feedback(old: Database) -> None:
    with old.write() as session:
        migrate(session.connection(), AFTER)
    with old.write() as session:
        migrate(session.connection(), BEFORE)
    with old.read() as session:
        for table, expected in (("user_interactions", "i"), ("feedback_events", "f")):
            found = session.connection().execute(text(f"SELECT id FROM {table}")).all()
            assert found == [(expected,)]
        columns = session.connection().execute(text("SELECT * FROM user_interactions")).keys()
        assert "source" not in columns


def test_experiments_of_before_are_trials_and_the_way_back_loses_nothing(
    old: Database,
) -> None:
    with old.write() as session:
        migrate(session.connection(), "0004")
        session.connection().execute(
            text(
                "INSERT INTO experiments (id, workload, share, status, settings, started_at)"
                " VALUES ('e', 'default', 0.1, 'running', '{}', '2026-01-01')"
            )
        )
        session.connection().execute(text("UPDATE user_interactions SET experiment_id = 'e'"))
    for revision in ("0010", "0004", "0010"):
        with old.write() as session:
            migrate(session.connection(), revision)
    with old.read() as session:
        connection = session.connection()
        kept = connection.execute(text("SELECT kind, frozen FROM experiments")).one()
        linked = connection.execute(text("SELECT experiment_id FROM user_interactions")).one()
    assert tuple(kept) == ("trial", 0)
    assert tuple(linked) == ("e",)
