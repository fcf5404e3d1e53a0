"""Totals of usage, kept by the database itself, and indexes for every query.

Triggers, because rows are added, rated, corrected and erased in many places, and totals that
one of them forgets would be wrong for good. Plain CREATE statements only: a batch operation
would rebuild user_interactions on SQLite, and take all feedback along.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLE = "user_interactions"
COUNTS = ("total", "rated", "positive", "negative", "errors", "scored", "quality_nano")
INDEXES = (
    ("ix_interactions_user_created", ["user_id", "created_at"], "user_id"),
    ("ix_interactions_experiment", ["experiment_id", "role"], "experiment_id"),
    ("ix_user_interactions_model_version", ["model_version"], "model_version"),
    ("ix_interactions_workload_feedback", ["workload", "feedback_at"], "feedback_at"),
)
"""Names, columns, and the column without which a row is no longer in the index."""
RATED = ["workload", "rated_kind", "user_feedback", "feedback_at", "quality_score"]
MERGE = "ON CONFLICT (workload, hour, role, writer) DO UPDATE SET " + ", ".join(
    f"{name} = usage_hours.{name} + excluded.{name}" for name in COUNTS
)
COLUMNS = f"(workload, hour, role, writer, {', '.join(COUNTS)})"


def upgrade() -> None:
    op.create_table(
        "usage_hours",
        sa.Column("workload", sa.String(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("writer", sa.Integer(), autoincrement=False, nullable=False),
        *(
            sa.Column(
                name, sa.BigInteger() if name == "quality_nano" else sa.Integer(), nullable=False
            )
            for name in COUNTS
        ),
        sa.PrimaryKeyConstraint("workload", "hour", "role", "writer", name=op.f("pk_usage_hours")),
    )
    op.add_column(TABLE, sa.Column("rated_kind", sa.String(), nullable=True))
    op.execute(
        f"UPDATE {TABLE} SET rated_kind = CASE WHEN corrected_output IS NOT NULL THEN 'corrected' "
        "WHEN messages IS NOT NULL THEN 'chat' ELSE 'prompt' END WHERE feedback_at IS NOT NULL"
    )
    for name, columns, needed in INDEXES:
        op.drop_index(name, TABLE)
        _create_partial(name, columns, needed)
    _create_partial("ix_interactions_rated", RATED, "rated_kind")
    if op.get_bind().dialect.name == "postgresql":
        _count_on_postgresql()
    else:
        _count_on_sqlite()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER count_usage_{event} ON {TABLE}")
            op.execute(f"DROP FUNCTION count_usage_{event}")
    else:
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER count_usage_{event}")
    op.drop_index("ix_interactions_rated", TABLE)
    for name, columns, _needed in INDEXES:
        op.drop_index(name, TABLE)
        op.create_index(name, TABLE, columns)
    op.drop_column(TABLE, "rated_kind")
    op.drop_table("usage_hours")


def _create_partial(name: str, columns: list[str], needed: str) -> None:
    where = sa.text(f"{needed} IS NOT NULL")
    op.create_index(name, TABLE, columns, sqlite_where=where, postgresql_where=where)


def _count_on_sqlite() -> None:
    hour = "strftime('%Y-%m-%d %H:00:00.000000', {row}.created_at)"

    def count(row: str, sign: str) -> str:
        values = (
            f"{sign}1",
            f"{sign}({row}.user_feedback IS NOT NULL)",
            f"{sign}coalesce({row}.user_feedback = 1, 0)",
            f"{sign}coalesce({row}.user_feedback = -1, 0)",
            f"{sign}({row}.error IS NOT NULL)",
            f"{sign}({row}.quality_score IS NOT NULL)",
            f"{sign}coalesce(CAST(round({row}.quality_score * 1e9) AS INTEGER), 0)",
        )
        return (
            f"INSERT INTO usage_hours {COLUMNS} VALUES ({row}.workload, {hour.format(row=row)}, "
            f"{row}.role, 0, {', '.join(values)}) {MERGE};"
        )

    come, gone = count("NEW", "+"), count("OLD", "-")
    watched = ("workload", "role", "created_at", "user_feedback", "error", "quality_score")
    changed = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in watched)
    for event, body in (
        ("insert", f"AFTER INSERT ON {TABLE} BEGIN {come} END"),
        ("delete", f"AFTER DELETE ON {TABLE} BEGIN {gone} END"),
        (
            "update",
            f"AFTER UPDATE OF {', '.join(watched)} ON {TABLE} WHEN {changed} "
            f"BEGIN {gone} {come} END",
        ),
    ):
        op.execute(f"CREATE TRIGGER count_usage_{event} {body}")
    op.execute(
        f"INSERT INTO usage_hours {COLUMNS} SELECT workload, {hour.format(row=TABLE)}, role, 0, "
        "count(*), count(user_feedback), coalesce(sum(user_feedback = 1), 0), "
        "coalesce(sum(user_feedback = -1), 0), "
        "count(error), count(quality_score), "
        "coalesce(sum(CAST(round(quality_score * 1e9) AS INTEGER)), 0) "
        f"FROM {TABLE} GROUP BY 1, 2, 3"
    )


def _count_on_postgresql() -> None:
    def rows(source: str, sign: str) -> str:
        return (
            f"SELECT workload, date_trunc('hour', created_at, 'UTC') AS hour, role, "
            f"{sign}1 AS total, {sign}(user_feedback IS NOT NULL)::int AS rated, "
            f"{sign}(coalesce(user_feedback = 1, false))::int AS positive, "
            f"{sign}(coalesce(user_feedback = -1, false))::int AS negative, "
            f"{sign}(error IS NOT NULL)::int AS errors, "
            f"{sign}(quality_score IS NOT NULL)::int AS scored, "
            f"{sign}coalesce(round(quality_score * 1e9)::bigint, 0) AS quality_nano "
            f"FROM {source}"
        )

    def count(source: str, writer: str) -> str:
        sums = ", ".join(f"sum({name})" for name in COUNTS)
        any_change = " OR ".join(f"sum({name}) <> 0" for name in COUNTS)
        return (
            f"INSERT INTO usage_hours {COLUMNS} SELECT workload, hour, role, {writer}, {sums} "
            f"FROM ({source}) AS changed GROUP BY workload, hour, role HAVING {any_change} {MERGE}"
        )

    come, gone = rows("come", "+"), rows("gone", "-")
    for event, source, tables in (
        ("insert", come, "NEW TABLE AS come"),
        ("update", f"{come} UNION ALL {gone}", "NEW TABLE AS come OLD TABLE AS gone"),
        ("delete", gone, "OLD TABLE AS gone"),
    ):
        op.execute(
            f"CREATE FUNCTION count_usage_{event}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"{count(source, 'pg_backend_pid()')}; RETURN NULL; END $$"
        )
        op.execute(
            f"CREATE TRIGGER count_usage_{event} AFTER {event.upper()} ON {TABLE} "
            f"REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION count_usage_{event}()"
        )
    op.execute(count(rows(TABLE, "+"), "0"))
