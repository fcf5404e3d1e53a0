import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.curation.cleaning import clean
from flows.curation.frames import SCHEMA
from flows.curation.reading import read_batch
from flows.curation.rows import RowSteps
from registry.crypto import Keyring
from registry.db import Database, open_database
from registry.settings_curation import CurationSettings

NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)
SETTINGS = CurationSettings()


def frame(*rows: dict[str, object]) -> pl.DataFrame:
    default = {
        "input_text": "write a mail",
        "structured_prompt": "Role: a",
        "quality_score": 0.9,
        "user_feedback": 1,
        "feedback_at": NOW,
    }
    return pl.DataFrame(
        [dict.fromkeys(SCHEMA) | default | {"id": str(i)} | row for i, row in enumerate(rows)],
        schema=SCHEMA,
    )


@pytest.mark.parametrize(
    ("row", "note", "kept"),
    [
        ({"input_text": None}, "blank request or answer", False),
        ({"input_text": " \n\t"}, "blank request or answer", False),
        ({"structured_prompt": ""}, "blank request or answer", False),
        ({"messages": "[]"}, "conversation that cannot be read", False),
        ({"messages": '["hi"]'}, "conversation that cannot be read", False),
        ({"input_text": "x" * 2_000_001}, "text too long", False),
        ({"input_text": "x" * 1_000_000}, "", True),
        ({"input_text": "a\x00b"}, "control characters removed", True),
        ({"input_text": "a\ufffdb"}, "text that was no Unicode", True),
        ({"input_text": "pаypal"}, "words of mixed scripts", True),  # noqa: RUF001
        ({"quality_score": float("nan")}, "quality score that is no share", True),
        ({"quality_score": 7.0}, "quality score that is no share", True),
        ({"feedback_at": NOW + timedelta(days=1)}, "feedback from the future", True),
        ({"external_model": "other"}, "model that is no version here", True),
    ],
)
def test_each_oddity_has_its_rule_and_its_count(
    row: dict[str, object], note: str, kept: bool
) -> None:
    found = clean(SETTINGS, now=NOW)(frame(row))
    assert [name for name, count in found.notes.items() if count] == ([note] if note else [])
    assert found.frame.height == kept


def test_control_characters_are_taken_out_of_conversations_too() -> None:
    row = {"messages": '[{"role": "user", "content": "a\\u0000b\\nc"}]'}
    found = clean(SETTINGS, now=NOW)(frame(row)).frame
    assert found["messages"][0] == '[{"role": "user", "content": "ab\\nc"}]'


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, Path]]:
    path = tmp_path_factory.mktemp("odd") / "odd.db"
    database = open_database(f"sqlite:///{path}")
    yield database, path
    database.close()


required_texts = st.text(alphabet=st.characters(), max_size=60) | st.binary(max_size=20)
texts = st.none() | required_texts
odd = st.fixed_dictionaries(
    {
        "user_id": texts,
        "input_text": required_texts,
        "messages": st.none() | st.text(max_size=30) | st.lists(st.integers() | texts, max_size=3),
        "structured_prompt": required_texts,
        "corrected_output": texts,
        "quality_score": st.none() | st.floats(),
        "user_feedback": st.none() | st.integers(-1, 1),
        "target_tool": texts,
        "language": texts,
        "external_model": texts,
        "feedback_at": st.datetimes(min_value=datetime(1000, 1, 1)),
    }
)


def written(value: object) -> object:
    """As SQLite holds it: any bytes may stand in a column of text."""
    if isinstance(value, datetime):
        return value.isoformat(" ", "microseconds")
    if isinstance(value, list):
        value = json.dumps([str(item) for item in value])
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def put(path: Path, rows: list[dict[str, object]]) -> None:
    required = {"workload": "default", "model_output": "x", "role": "champion"}
    required |= dict.fromkeys(("created_at", "updated_at"), NOW.isoformat(" ", "microseconds"))
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM user_interactions")
        for place, row in enumerate(rows):
            values = {
                **required,
                **{name: written(value) for name, value in row.items()},
                "id": f"{place}",
            }
            marks = ",".join(
                "CAST(? AS TEXT)" if isinstance(value, bytes) else "?" for value in values.values()
            )
            connection.execute(
                f"INSERT INTO user_interactions ({','.join(values)}) VALUES ({marks})",
                list(values.values()),
            )
    connection.close()


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(odd, min_size=1, max_size=6))
def test_no_row_can_stop_the_others(
    lenient: tuple[Database, Path], rows: list[dict[str, object]]
) -> None:
    """Whatever bytes lie in the database, lone surrogates included, the steps end and count it."""
    database, path = lenient
    put(path, rows)
    with database.read() as session:
        read = read_batch(
            session, Keyring(bytes(32)), workload="default", since=None, after=None, limit=10
        )
    page = RowSteps(SETTINGS, NOW)(read.with_columns(judgement=pl.lit(None, pl.String)))
    assert page.tally.left["with feedback"] == len(rows)
    assert page.frame.height + len(page.held) <= len(rows)
