"""The page of an evaluation."""

from __future__ import annotations

from datetime import UTC, datetime

from flows.decisions.gate import Scores, ToolScore
from flows.learner import Evaluated
from flows.reports.html import Row, evaluation_page


def test_a_page_stands_alone_and_escapes_what_it_is_given() -> None:
    row = Row(
        version="<script>alert(1)</script>",
        standing="champion",
        parent=None,
        evaluated=Evaluated(
            scores=Scores(0.5, 10, {"email": ToolScore(10, 0.25)}), metrics={"diversity": 0.75}
        ),
    )
    page = evaluation_page(
        [row], workload="default", dataset_id="d1", now=datetime(2026, 1, 14, 12, tzinfo=UTC)
    )
    assert "<script>" not in page
    assert all(number in page for number in ("0.500", "0.250", "0.750", "2026-01-14 12:00"))
    assert 'src="data:image/png;base64,' in page
    assert "<link" not in page
