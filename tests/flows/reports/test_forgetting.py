"""The forgetting matrix."""

from __future__ import annotations

import pytest

from flows.decisions.gate import Scores, ToolScore
from flows.learner import Evaluated
from flows.reports.forgetting import forgetting, forgetting_plot


def _evaluated(**accuracies: float) -> Evaluated:
    by_tool = {tool: ToolScore(10, accuracy) for tool, accuracy in accuracies.items()}
    return Evaluated(scores=Scores(0.5, 10, by_tool))


RESULTS = {
    "base": _evaluated(email=0.4),
    "few-shot": _evaluated(email=1.0),
    "one": _evaluated(email=0.9, code=0.5),
    "two": _evaluated(email=0.6, code=0.7),
    "three": _evaluated(email=0.8, code=0.7),
}


def test_every_version_is_held_against_the_best_before_it() -> None:
    found = forgetting(RESULTS)
    assert list(found) == ["base", "one", "two", "three"]
    assert found["base"] == {}
    assert found["one"] == pytest.approx({"email": 0.5})
    assert found["two"] == pytest.approx({"email": -0.3, "code": 0.2})
    assert found["three"] == pytest.approx({"email": -0.1, "code": 0.0})


@pytest.mark.parametrize("names", [["base"], list(RESULTS)])
def test_the_matrix_is_drawn_for_any_number_of_versions(names: list[str]) -> None:
    assert forgetting_plot({name: RESULTS[name] for name in names}).startswith(b"\x89PNG")
