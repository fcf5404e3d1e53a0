"""Whatever a file holds, each of its rows is counted, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.flows.intake.conftest import CHAT, GOOD, Run, jsonl

pytestmark = pytest.mark.both_databases

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OURS = ["id", "messages", "created_at", "rating", "thumb", "tokens_input", "user_id", "response"]
FIELDS = st.sampled_from([*OURS, "instruction", "input", "system"])


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(st.dictionaries(FIELDS, JSON, max_size=3), min_size=1, max_size=4))
def test_whatever_a_row_holds_it_is_counted_once(
    run: Run, tmp_path: Path, changes: list[dict[str, Any]]
) -> None:
    path = jsonl(tmp_path / "log.jsonl", GOOD, *(GOOD | change for change in changes))
    report = run(path)
    assert report.read == 1 + len(changes)
    assert report.imported + report.known + report.refused == report.read


ROLES = st.sampled_from(["user", "assistant", "system", "tool"])
TURNS = st.lists(
    st.fixed_dictionaries({"role": ROLES | JSON, "content": JSON | st.just(["text"])}), max_size=3
)
CHOICES = st.lists(st.fixed_dictionaries({"message": st.fixed_dictionaries({"content": JSON})}))
ROWS = {
    "chatml": ({"messages": CHAT}, st.fixed_dictionaries({"messages": TURNS | JSON})),
    "openai": (
        {
            "request": {"messages": CHAT[:1]},
            "response": {"choices": [{"message": CHAT[1]}]},
        },
        st.fixed_dictionaries(
            {
                "request": st.fixed_dictionaries({"messages": TURNS | JSON}) | JSON,
                "response": st.fixed_dictionaries({"choices": CHOICES | JSON}) | JSON,
            }
        ),
    ),
}


@pytest.mark.parametrize("form", ROWS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_a_chat_holds_it_is_counted_once(
    run: Run, tmp_path: Path, form: str, data: st.DataObject
) -> None:
    good, strange = ROWS[form]
    values = data.draw(st.lists(strange, min_size=1, max_size=4))
    report = run(jsonl(tmp_path / "log.jsonl", good, *values))
    assert (report.format, report.read) == (form, 1 + len(values))
    assert report.imported + report.known + report.refused == report.read
