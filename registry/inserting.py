"""INSERT that knows what to do about rows that are there already, on either database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session


def own_insert(session: Session, table: type[Any]) -> postgresql.Insert | sqlite.Insert:
    """The dialect's own INSERT, which can say what is to be done about conflicts."""
    if session.connection().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_ignoring_duplicates(
    session: Session, table: type[Any], rows: Sequence[dict[str, Any]]
) -> int:
    """Insert rows, leaving out those that break a unique constraint; the number inserted."""
    if not rows:
        return 0
    statement = own_insert(session, table).on_conflict_do_nothing()
    connection = session.connection()
    return sum(connection.execute(statement, row).rowcount for row in rows)
