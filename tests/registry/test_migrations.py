"""Schema changes keep what people have left behind, on the way up and on the way down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from registry.db import Database
from registry.errors import DatabaseError
from registry.statistics import statistics
from tests.support.migrating import migrate
from tests.support.postgresql import Server

OLDEST = "0001"
ROWS = (
    "INSERT INTO workloads (name, created_at) VALUES ('default', '2026-01-01 00:00:00.000000')",
    "INSERT INTO users (id, created_at) VALUES ('u', '2026-01-01 00:00:00.000000')",
    "INSERT INTO user_interactions (id, user_id, input_text, structured_prompt, model_output,"
    " quality_score, created_at, updated_at, {rated}) VALUES ('i', 'u', 'a', 'b', 'c', 0.5,"
    " '2026-01-01 10:30:00.000000', '2026-01-01 10:30:00.000000', {values})",
    "INSERT INTO feedback_events (id, interaction_id, score, created_at)"
    " VALUES ('f', 'i', 5, '2026-01-01 00:00:00.000000')",
    "INSERT INTO training_data (id, source_interaction_id, input_prompt, target_output, source,"
    " content_hash, cluster_id, split, created_at)"
    " VALUES ('t', 'i', 'a', 'b', 'accepted', 'c', 'd', 'train', '2026-01-01 00:00:00.000000')",
)
TABLES = {"user_interactions": "i", "feedback_events": "f", "training_data": "t", "users": "u"}


@pytest.fixture
def blank(request: pytest.FixtureRequest, database_url: str) -> Iterator[Database]:
    """A database in which there is nothing at all."""
    is_file = database_url.startswith("sqlite")
    server: Server | None = None if is_file else request.getfixturevalue("postgresql")
    url = database_url if server is None else server.create(template="template0")
    database = Database(url)
    yield database
    database.close()
    if server is not None:
        server.drop(url)


@pytest.fixture
def old(blank: Database) -> Database:
    """A database of the first schema, with an answer and what hangs on it."""
    blank.upgrade()
    with blank.write() as session:
        migrate(session.connection(), OLDEST)
        for statement in ROWS:
            query = statement.format(
                rated="user_feedback, feedback_score, feedback_at",
                values="1, 5, '2026-01-02 00:00:00.000000'",
            )
            session.connection().execute(text(query))
    return blank


def ids(database: Database) -> dict[str, list[str]]:
    with database.read() as session:
        return {
            table: list(session.connection().execute(text(f"SELECT id FROM {table}")).scalars())
            for table in TABLES
        }


def test_the_oldest_database_comes_up_with_all_that_is_in_it(old: Database) -> None:
    old.upgrade()
    old.check()
    assert ids(old) == {table: [row] for table, row in TABLES.items()}
    with old.read() as session:
        row = session.connection().execute(
            text("SELECT source, external_model, rated_kind FROM user_interactions")
        )
        assert row.one() == ("served", None, "prompt")
        found = statistics(session)
    assert (found.total, found.rated, found.positive, found.avg_quality) == (1, 1, 1, 0.5)


def test_the_way_back_keeps_everything_too(old: Database) -> None:
    old.upgrade()
    with old.write() as session:
        migrate(session.connection(), OLDEST)
    assert ids(old) == {table: [row] for table, row in TABLES.items()}
    names = {column["name"] for column in inspect(old.engine).get_columns("user_interactions")}
    assert not names & {"source", "external_model", "rated_kind"}
    # What counts usage is gone with the counts: rows can still be removed.
    with old.write() as session:
        session.connection().execute(text("DELETE FROM user_interactions"))
    assert ids(old)["feedback_events"] == []


def test_every_step_can_be_gone_both_ways(old: Database) -> None:
    with old.write() as session:
        connection = session.connection()
        folder = migrate(connection, OLDEST)
        revisions = [script.revision for script in ScriptDirectory(str(folder)).walk_revisions()]
        assert revisions[-1] == OLDEST
        assert len(revisions) >= 5
        for revision in reversed(revisions):
            migrate(connection, revision)
        for revision in revisions:
            migrate(connection, revision)
    old.upgrade()
    assert ids(old) == {table: [row] for table, row in TABLES.items()}


def test_a_blank_database_comes_up_and_goes_down_again(blank: Database) -> None:
    blank.upgrade()
    blank.check()
    with blank.write() as session:
        migrate(session.connection(), "base")
    assert set(inspect(blank.engine).get_table_names()) <= {"alembic_version"}


def test_a_migration_that_fails_leaves_the_schema_as_it_was(old: Database) -> None:
    with old.write() as session:
        session.connection().execute(text("CREATE TABLE usage_hours (id INTEGER)"))
    with pytest.raises(DatabaseError, match="already exists"):
        old.upgrade()
    with old.read() as session:
        at = session.connection().execute(text("SELECT version_num FROM alembic_version"))
        assert at.scalar_one() == OLDEST
    names = {column["name"] for column in inspect(old.engine).get_columns("user_interactions")}
    assert "source" not in names
    assert ids(old) == {table: [row] for table, row in TABLES.items()}


def test_a_test_split_keeps_the_items_of_datasets_on_both_ways(old: Database) -> None:
    with old.write() as session:
        migrate(session.connection(), "0007")
        session.connection().execute(
            text(
                "INSERT INTO datasets (id, workload, digest, num_train, num_validation, settings,"
                " counts, created_at) VALUES ('d', 'default', 'x', 1, 0, '{}', '{}',"
                " '2026-01-01 00:00:00.000000')"
            )
        )
        session.connection().execute(text("INSERT INTO dataset_items VALUES ('d', 't', 'train')"))
        items = session.connection().execute(text("SELECT * FROM dataset_items")).all()
    with old.write() as session:
        migrate(session.connection(), "0008")
        session.connection().execute(text("UPDATE training_data SET split = 'test'"))
    with old.write() as session:
        found = session.connection().execute(text("SELECT * FROM dataset_items")).all()
        assert found == items
        migrate(session.connection(), "0007")
    with old.read() as session:
        found = session.connection().execute(text("SELECT * FROM dataset_items")).all()
        assert found == items
        found = session.connection().execute(text("SELECT split FROM training_data")).all()
        assert found == [("validation",)]


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
