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


def test_a_test_split_keeps_the_items_of_datasets_on_both_ways(old: Database) -> None:
    with old.write() as session:
        migrate(session.connection(), AFTER)
        for statement in (
            "INSERT INTO training_data (id, source_interaction_id, input_prompt, target_output,"
            " source, content_hash, cluster_id, split, created_at)"
            " VALUES ('t', 'i', 'a', 'b', 'accepted', 'h', 'c', 'train', '2026-01-01')",
            "INSERT INTO datasets (id, workload, digest, num_train, num_validation, settings,"
            " counts, created_at) VALUES ('d', 'default', 'x', 1, 0, '{}', '{}', '2026-01-01')",
            "INSERT INTO dataset_items VALUES ('d', 't', 'train')",
        ):
            session.connection().execute(text(statement))
    with old.write() as session:
        migrate(session.connection(), "0008")
        session.connection().execute(text("UPDATE training_data SET split = 'test'"))
    with old.write() as session:
        found = session.connection().execute(text("SELECT * FROM dataset_items")).all()
        assert found == [("d", "t", "train")]
        migrate(session.connection(), AFTER)
    with old.read() as session:
        found = session.connection().execute(text("SELECT * FROM dataset_items")).all()
        assert found == [("d", "t", "train")]
        found = session.connection().execute(text("SELECT split FROM training_data")).all()
        assert found == [("validation",)]
