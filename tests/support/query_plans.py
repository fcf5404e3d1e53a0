"""How a database carries out the statements that the product makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event

from registry.db import Database

LARGE = ("user_interactions", "feedback_events", "training_data")
"""The tables that grow with use."""


@dataclass(frozen=True)
class Statement:
    """What was sent to the driver."""

    text: str
    parameters: Any

    @property
    def is_about_large_tables(self) -> bool:
        """Whether its plan matters: it reads or changes rows of a table that grows."""
        words = self.text.split()
        reads = words[0] in ("SELECT", "UPDATE", "DELETE")
        return reads and any(name in self.text for name in LARGE)


@contextmanager
def statements(database: Database) -> Iterator[list[Statement]]:
    """Collects what is sent while the block runs."""
    found: list[Statement] = []

    def keep(_c: Any, _cursor: Any, text: str, parameters: Any, *_rest: Any) -> None:
        found.append(Statement(text, parameters))

    event.listen(database.engine, "before_cursor_execute", keep)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", keep)


def scans(database: Database, statement: Statement) -> list[str]:
    """The steps of a statement's plan that read all of a large table, or all of its index."""
    with database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {statement.text}", statement.parameters
            )
            steps = [str(row[-1]) for row in rows]
            return [step for step in steps if step.startswith("SCAN") and _is_large(step)]
        plan = connection.exec_driver_sql(
            f"EXPLAIN (FORMAT JSON) {statement.text}", statement.parameters
        ).scalar_one()
        return [
            f"{node['Node Type']} on {node['Relation Name']}"
            for node in _nodes(plan[0]["Plan"])
            if _is_large(node.get("Relation Name", "")) and not _is_narrowed(node)
        ]


def _is_large(step: str) -> bool:
    return any(name in step.split() for name in LARGE)


def _is_narrowed(node: dict[str, Any]) -> bool:
    """Whether a node is told by an index which rows to read, or changes those it is given."""
    return node["Node Type"] == "ModifyTable" or "Index Cond" in node or "Recheck Cond" in node


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
