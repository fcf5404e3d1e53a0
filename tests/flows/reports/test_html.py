"""The page of an evaluation."""

from __future__ import annotations

from datetime import UTC, datetime

from flows.decisions.gate import Scores, ToolScore
from flows.learner import Evaluated
from flows.reports.html import Row, evaluation_page, notes, plots

NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)


def row(version: str, accuracy: float, *, made: datetime | None = None) -> Row:
    return Row(
        version=version,
        standing="champion",
        parent=None,
        evaluated=Evaluated(
            scores=Scores(accuracy, 10, {"email": ToolScore(10, 0.25)}),
            metrics={"accuracy": accuracy, "accuracy from": 0.31, "accuracy to": 0.69}
            | {"diversity": 0.75},
            by_tool={"email": {"accuracy": 0.25}},
            by_language={"ar": {"accuracy": 0.125}},
        ),
        made=made,
    )


def test_a_page_stands_alone_and_escapes_what_it_is_given() -> None:
    rows = [row("<script>alert(1)</script>", 0.5, made=NOW)]
    page = evaluation_page(
        rows, workload="default", asked="frozen suites a", now=NOW, pictures=plots(rows)
    )
    assert "<script>" not in page
    told = (
        "0.500 (0.31 to 0.69)",
        "0.250",
        "0.125",
        "0.750",
        "2026-01-14 12:00",
        "frozen suites a",
    )
    assert all(number in page for number in told)
    assert page.count('src="data:image/png;base64,') == 4
    assert "<link" not in page


def test_a_trained_version_that_prompting_with_examples_matches_says_so() -> None:
    rows = [
        row("base", 0.4),
        row("few-shot", 0.6),
        row("a", 0.6, made=NOW),
        row("b", 0.61, made=NOW),
    ]
    assert notes(rows) == [
        "a (champion) is no better than the base model with examples in its prompt: accuracy "
        "0.600 against 0.600."
    ]
    assert notes([row("base", 0.4), row("a", 0.1, made=NOW)]) == []
