"""Fills a registry with as much as a busy year leaves behind, in seconds."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import text

from registry.db import Database

NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)
"""The moment after the last row."""
PROMPT = "Write a professional email to request a meeting with the finance team next week. "
ANSWER = (
    "Role: office assistant\nTask: Write an email to request a meeting\nContext: the finance team "
    "should attend, next week\nTone: professional\nFormat: subject, greeting, body, closing\n"
    "Constraints: at most 120 words"
)

ON_SQLITE = {
    "numbers": "(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n"
    " WHERE i + 1 < :rows) SELECT i FROM n) AS n",
    "number": "printf('%08d', i)",
    "moment": "strftime('%Y-%m-%d %H:%M:%f000', 1768392000 - (:rows - i) * :step, 'unixepoch')",
    "truth": "1",
}
ON_POSTGRESQL = {
    "numbers": "generate_series(0, :rows - 1) AS n(i)",
    "number": "lpad(i::text, 8, '0')",
    "moment": "to_timestamp(1768392000 - (:rows - i) * cast(:step AS float))",
    "truth": "true",
}

STATEMENTS = (
    "INSERT INTO workloads (name, created_at) SELECT DISTINCT {workload}, {moment} "
    "FROM {numbers} WHERE i < :workloads AND {workload} <> 'default'",
    "INSERT INTO users (id, created_at) SELECT 'u' || i, {moment} FROM {numbers} WHERE i < :users",
    "INSERT INTO datasets (id, workload, digest, num_train, num_validation, settings, counts,"
    " created_at) SELECT 'd' || i, 'default', 'd' || i, 1, 0, '{{}}', '{{}}', {moment}"
    " FROM {numbers} WHERE i < 20",
    "INSERT INTO model_versions (version, workload, base_model, training_dataset_id, objective,"
    " recipe, adapter_digest, performance_metrics, evaluation, created_at)"
    " SELECT 'v' || i, 'default', 'b', 'd' || i, 'sft', 'r', 'a', '{{}}', '{{}}', {moment}"
    " FROM {numbers} WHERE i < 20",
    "INSERT INTO experiments (id, workload, share, status, settings, started_at)"
    " SELECT 'e' || i, 'default', 0.1, 'retired', '{{}}', {moment} FROM {numbers} WHERE i < 20",
    "INSERT INTO user_interactions (id, workload, user_id, session_id, input_text, messages,"
    " structured_prompt, model_output, tokens_input, tokens_output, tokens_total,"
    " processing_time_ms, queue_ms, model_version, role, experiment_id, target_tool, language,"
    " quality_score, scorer_version, error, feedback_score, user_feedback, corrected_output,"
    " rated_kind, feedback_at, created_at, updated_at)"
    " SELECT 'i' || {number}, {workload}, 'u' || (i % :users), 's' || (i / 10), :prompt || i,"
    " CASE WHEN i % 5 = 0 THEN '[]' END{json}, :answer, :answer, 20, 80, 100, 120.5, 0.25,"
    " CASE WHEN i % 2 = 0 THEN 'v' || (i / 2 % 20) END,"
    " CASE WHEN i % 2 = 0 THEN 'champion' ELSE 'default' END,"
    " CASE WHEN i % 200 = 0 THEN 'e' || (i / 200 % 20) END, 'email', 'en',"
    " CASE WHEN i % 5 > 0 THEN (i % 100) / 100.0 END, 'rules-1',"
    " CASE WHEN i % 97 = 0 THEN 'timeout' END,"
    " CASE WHEN i % 3 = 0 THEN i / 3 % 5 + 1 END,"
    " CASE WHEN i % 3 = 0 THEN CASE WHEN i / 3 % 5 > 2 THEN 1 ELSE -1 END END,"
    " CASE WHEN i % 30 = 0 THEN :answer END,"
    " CASE WHEN i % 30 = 0 THEN 'corrected' WHEN i % 15 = 0 THEN 'chat'"
    " WHEN i % 3 = 0 THEN 'prompt' END,"
    " CASE WHEN i % 3 = 0 THEN {moment} END, {moment}, {moment} FROM {numbers}",
    "INSERT INTO feedback_events (id, interaction_id, score, thumb, created_at)"
    " SELECT 'f' || i, 'i' || {number}, i / 3 % 5 + 1, 1, {moment} FROM {numbers} WHERE i % 3 = 0",
    "INSERT INTO training_data (id, workload, source_interaction_id, input_prompt, target_output,"
    " source, quality_score, content_hash, cluster_id, split, is_curated, is_selected, created_at)"
    " SELECT 't' || i, {workload}, 'i' || {number}, :prompt, :answer, 'accepted', 0.9, 'h' || i,"
    " 'c' || i, 'train', {truth}, {truth}, {moment} FROM {numbers} WHERE i % 4 = 0",
    "INSERT INTO dataset_items (dataset_id, training_data_id, split)"
    " SELECT 'd' || (i / 4 % 20), 't' || i, 'train' FROM {numbers} WHERE i % 40 = 0",
)


def fill(database: Database, rows: int, *, workloads: int = 50, days: float = 90) -> None:
    """Put `rows` interactions of the `days` before `NOW` into a registry with workload default.

    A third has feedback, a fifth is chat, a quarter is training data; the workloads share
    them evenly.
    """
    sqlite = database.engine.dialect.name == "sqlite"
    terms = {
        **(ON_SQLITE if sqlite else ON_POSTGRESQL),
        "workload": "CASE i % :workloads WHEN 0 THEN 'default' ELSE 'w' || (i % :workloads) END",
        "json": "" if sqlite else "::jsonb",
    }
    values = {
        "rows": rows,
        "step": days * 86_400 / rows,
        "workloads": workloads,
        "users": max(20, rows // 100),
        "prompt": PROMPT,
        "answer": ANSWER,
    }
    with database.write() as session:
        for statement in STATEMENTS:
            query = text(statement.format(**terms))
            used = {name: values[name] for name in query._bindparams}
            session.connection().execute(query, used)
    settle(database)


def settle(database: Database) -> None:
    """As PostgreSQL is a minute later: its autovacuum has seen what changed."""
    if database.engine.dialect.name == "postgresql":
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("VACUUM ANALYZE"))
