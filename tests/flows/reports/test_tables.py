"""Markdown that holds together whatever is in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows.decisions.gate import Scores, ToolScore
from flows.learner import Evaluated
from flows.reports.tables import evaluation_table, table


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=5))
def test_whatever_a_cell_holds_the_table_keeps_its_shape(rows: list[list[str]]) -> None:
    lines = table(["a", "b"], rows).split("\n")
    assert len(lines) == 2 + len(rows)
    for line in lines:
        assert line.replace("\\|", "").count("|") == 3


def test_values_are_shown_as_people_read_them() -> None:
    assert table(["a", "b", "c"], [[None, 0.12345, 7]]).endswith("| – | 0.123 | 7 |")


def test_versions_are_compared_metric_by_metric_by_tool_and_by_language() -> None:
    base = Evaluated(
        scores=Scores(0.4, 20, {"email": ToolScore(20, 0.4)}),
        metrics={"accuracy": 0.4},
        by_tool={"email": {"accuracy": 0.4}},
    )
    trained = Evaluated(
        scores=Scores(0.8, 30, {"email": ToolScore(20, 0.9), "code": ToolScore(10, 0.6)}),
        metrics={"accuracy": 0.8, "accuracy from": 0.7, "accuracy to": 0.9, "diversity": 0.7},
        by_tool={"email": {"accuracy": 0.9}, "code": {"accuracy": 0.6}},
        by_language={"ar": {"accuracy": 0.5}},
    )
    assert evaluation_table({"base": base, "v1": trained}).splitlines() == [
        "| version | samples | accuracy | diversity |",
        "| --- | --- | --- | --- |",
        "| base | 20 | 0.400 | – |",
        "| v1 | 30 | 0.800 (0.70 to 0.90) | 0.700 |",
        "",
        "Accuracy by target tool",
        "",
        "| version | code | email |",
        "| --- | --- | --- |",
        "| base | – | 0.400 |",
        "| v1 | 0.600 | 0.900 |",
        "",
        "Accuracy by language",
        "",
        "| version | ar |",
        "| --- | --- |",
        "| base | – |",
        "| v1 | 0.500 |",
    ]
