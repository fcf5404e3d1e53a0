"""The seeds' tables, with the constraints that their audit found missing."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from registry.db import Database

SEEDS = {
    "user_interactions": """id user_id session_id input_text structured_prompt model_output
        tokens_input tokens_output tokens_total processing_time_ms model_version target_tool
        language feedback_score feedback_text created_at updated_at""",
    "training_data": """id source_interaction_id input_prompt target_output quality_score
        domain_category use_case is_curated is_selected created_at""",
    "model_versions": """version base_model training_dataset_id performance_metrics
        deployment_status deployed_at created_at""",
}
RULES = {
    ("user_interactions", "user_id"): ("users", "SET NULL"),
    ("user_interactions", "model_version"): ("model_versions", "SET NULL"),
    ("user_interactions", "experiment_id"): ("experiments", "SET NULL"),
    ("user_interactions", "workload"): ("workloads", "RESTRICT"),
    ("feedback_events", "interaction_id"): ("user_interactions", "CASCADE"),
    ("client_metadata", "interaction_id"): ("user_interactions", "CASCADE"),
    ("training_data", "source_interaction_id"): ("user_interactions", "CASCADE"),
    ("dataset_items", "training_data_id"): ("training_data", "CASCADE"),
    ("dataset_items", "dataset_id"): ("datasets", "CASCADE"),
    ("model_versions", "training_dataset_id"): ("datasets", "RESTRICT"),
    ("model_versions", "parent_version"): ("model_versions", "SET NULL"),
}
PLAIN = (
    "INSERT INTO user_interactions (id, user_id, input_text, structured_prompt, model_output,"
    " created_at, updated_at) VALUES ('i', 'u', 'a', 'b', 'c', '2026-01-01 00:00:00.000000',"
    " '2026-01-01 00:00:00.000000')"
)


@pytest.mark.parametrize("table", SEEDS)
def test_every_column_of_the_seeds_is_there_by_its_name(database: Database, table: str) -> None:
    columns = {column["name"] for column in inspect(database.engine).get_columns(table)}
    assert set(SEEDS[table].split()) <= columns


def test_where_a_request_came_from_is_kept_apart_from_it(database: Database) -> None:
    columns = {column["name"] for column in inspect(database.engine).get_columns("client_metadata")}
    assert {"ip_address_encrypted", "user_agent_encrypted"} <= columns


def test_foreign_keys_have_their_rules(database: Database) -> None:
    found = {}
    for table in {table for table, _ in RULES}:
        for key in inspect(database.engine).get_foreign_keys(table):
            options = key["options"]
            assert options["onupdate"] == "CASCADE"
            found[table, key["constrained_columns"][0]] = (
                key["referred_table"],
                options.get("ondelete", "NO ACTION"),
            )
    assert {place: found[place] for place in RULES} == RULES


def test_what_nobody_gives_has_a_default_in_the_database_itself(database: Database) -> None:
    with database.write() as session:
        run = session.connection().execute
        run(text("INSERT INTO users (id, created_at) VALUES ('u', '2026-01-01 00:00:00.000000')"))
        run(text(PLAIN))
        run(
            text(
                "INSERT INTO training_data (id, source_interaction_id, input_prompt, target_output,"
                " source, content_hash, cluster_id, split, created_at) VALUES ('t', 'i', 'a', 'b',"
                " 'accepted', 'c', 'd', 'train', '2026-01-01 00:00:00.000000')"
            )
        )
        row = run(text("SELECT workload, role, source FROM user_interactions")).one()
        flags = run(text("SELECT workload, is_curated, is_selected FROM training_data")).one()
    assert tuple(row) == ("default", "default", "served")
    assert (flags[0], bool(flags[1]), bool(flags[2])) == ("default", False, False)


def test_a_user_who_is_renamed_keeps_answers_and_one_who_goes_leaves_them(
    database: Database,
) -> None:
    with database.write() as session:
        run = session.connection().execute
        run(text("INSERT INTO users (id, created_at) VALUES ('u', '2026-01-01 00:00:00.000000')"))
        run(text(PLAIN))
        run(text("UPDATE users SET id = 'v'"))
        assert run(text("SELECT user_id FROM user_interactions")).scalar_one() == "v"
        run(text("DELETE FROM users"))
        assert run(text("SELECT user_id FROM user_interactions")).scalar_one() is None


def test_a_workload_with_answers_cannot_be_removed(database: Database) -> None:
    with database.write() as session:
        run = session.connection().execute
        run(text("INSERT INTO users (id, created_at) VALUES ('u', '2026-01-01 00:00:00.000000')"))
        run(text(PLAIN))
        run(text("DELETE FROM deployment_state"))
    with pytest.raises(IntegrityError), database.write() as session:
        session.connection().execute(text("DELETE FROM workloads"))


def test_postgresql_keeps_zones_and_searchable_json(database: Database) -> None:
    if database.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has neither type; what is read back is tested elsewhere")
    inspector = inspect(database.engine)
    kinds: dict[str, set[str]] = {"JSON": set(), "TIMESTAMP": set()}
    for table in inspector.get_table_names():
        for column in inspector.get_columns(table):
            kind = str(column["type"])
            if "JSON" in kind:
                kinds["JSON"].add(kind)
            if "TIMESTAMP" in kind:
                kinds["TIMESTAMP"].add(str(getattr(column["type"], "timezone", None)))
    assert kinds == {"JSON": {"JSONB"}, "TIMESTAMP": {"True"}}
