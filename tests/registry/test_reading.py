"""Many rows come into polars in order, in batches, typed, from both databases."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from sqlalchemy import Select, insert, select
from sqlmodel import col

from registry.db import Database
from registry.errors import DatabaseError
from registry.models import TrainingData, UserInteraction
from registry.reading import MOMENT, iter_frames, schema_of
from tests.registry.conftest import NOW

TABLE = UserInteraction


def row(number: int, **changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "id": f"i{number:03}",
        "workload": "default",
        "input_text": "it's 100% :ok \\ “é”",
        "messages": None,
        "structured_prompt": "b",
        "model_output": "c",
        "error": None,
        "quality_score": None,
        "feedback_score": None,
        "feedback_at": None,
        "created_at": NOW + timedelta(microseconds=number),
        "updated_at": NOW,
    }
    return values | changes


def put(database: Database, *rows: dict[str, object]) -> None:
    with database.write() as session:
        session.connection().execute(insert(UserInteraction), list(rows))


def columns(*conditions: Any) -> Select[Any]:
    return (
        select(
            col(TABLE.id),
            col(TABLE.input_text),
            col(TABLE.messages),
            col(TABLE.quality_score),
            col(TABLE.feedback_score),
            col(TABLE.feedback_at),
            col(TABLE.created_at),
        )
        .where(col(TABLE.workload) == "default", *conditions)
        .order_by(col(TABLE.created_at).desc(), col(TABLE.id))
    )


def test_columns_that_begin_with_nothing_get_their_type_all_the_same(database: Database) -> None:
    late = row(0, messages=[{"a": "é"}], quality_score=0.1, feedback_score=5, feedback_at=NOW)
    put(database, late, *(row(number) for number in range(1, 100)))
    frames = list(iter_frames(database, columns(), batch_rows=30))
    assert [frame.height for frame in frames if frame.height > 30] == []
    assert {tuple(frame.schema.items()) for frame in frames} == {
        tuple(schema_of(columns()).items())
    }
    found = pl.concat(frames)
    assert found["id"].to_list() == [f"i{number:03}" for number in reversed(range(100))]
    last = found.row(-1, named=True)
    assert last["input_text"] == "it's 100% :ok \\ “é”"
    assert (last["quality_score"], last["feedback_score"]) == (0.1, 5)
    assert pl.Series([last["messages"]]).str.json_decode(pl.List(pl.Struct({"a": pl.String})))[0][
        0
    ] == {"a": "é"}
    assert (last["feedback_at"], last["created_at"]) == (NOW, NOW)
    assert found["created_at"].dtype == MOMENT
    assert found["created_at"][0] == NOW + timedelta(microseconds=99)


@pytest.mark.parametrize("text", ["it's 100% :ok \\ “é”", "nothing like it", "'; DROP TABLE x --"])
def test_conditions_hold_whatever_characters_they_have(database: Database, text: str) -> None:
    put(database, row(1))
    frames = list(iter_frames(database, columns(col(TABLE.input_text) == text)))
    assert sum(frame.height for frame in frames) == int(text.startswith("it's"))


def test_moments_are_compared_as_moments(database: Database) -> None:
    put(database, *(row(number) for number in range(10)))
    since = datetime.fromisoformat("2026-01-14T13:00:00.000007+01:00")
    frames = list(iter_frames(database, columns(col(TABLE.created_at) >= since)))
    assert [frame["id"].to_list() for frame in frames] == [["i009", "i008", "i007"]]


def test_truth_values_are_truth_values(database: Database) -> None:
    put(database, row(1))
    sample = {
        "id": "t",
        "source_interaction_id": "i001",
        "input_prompt": "a",
        "target_output": "b",
        "content_hash": "c",
        "cluster_id": "d",
        "split": "train",
        "source": "accepted",
        "is_curated": True,
        "created_at": NOW,
    }
    with database.write() as session:
        session.connection().execute(insert(TrainingData), [sample])
    query = select(col(TrainingData.is_curated), col(TrainingData.is_selected))
    (frame,) = iter_frames(database, query)
    assert frame.rows() == [(True, False)]


def test_nothing_found_is_no_frame(database: Database) -> None:
    assert list(iter_frames(database, columns())) == []


def test_a_query_that_fails_is_one_clear_error(database: Database) -> None:
    with database.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE audit_log RENAME TO elsewhere")
    from registry.models import AuditEntry

    with pytest.raises(DatabaseError, match="cannot be read") as error:
        list(iter_frames(database, select(col(AuditEntry.actor))))
    assert "\n" not in str(error.value)
