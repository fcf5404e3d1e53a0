"""A condition that takes any number of ids as one parameter.

An IN list has a parameter for each id: it costs more to write down than to answer, and no
database takes more than some ten thousand of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import JSON, ColumnElement, cast, func, literal, select
from sqlalchemy.orm import Session


def among(session: Session, column: Any, ids: Collection[str]) -> ColumnElement[bool]:
    """Whether `column` is one of `ids`, for the database that `session` talks to."""
    written = literal(json.dumps(list(ids)))
    if session.get_bind().dialect.name == "sqlite":
        value = func.json_each(written).table_valued("value").c.value
    else:
        value = func.json_array_elements_text(cast(written, JSON)).column_valued("value")
    found: ColumnElement[bool] = column.in_(select(value))
    return found
