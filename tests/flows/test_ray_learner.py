"""What the flows are told of an evaluation: every metric, and the marks of a judge if any."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from flows.ray_learner import _evaluated, _judged
from registry.settings_training import JudgeSettings
from tests.support.fake_judge import fake_judge
from training.evaluation.suite import EvalExample, judge, summarise

EXAMPLES = [
    EvalExample(id="1", messages=(), reference="a b", target_tool="email", language="ar"),
    EvalExample(id="2", messages=(), reference="c d", target_tool="code"),
]
EVALUATION = summarise(
    [
        judge(EXAMPLES[0], "a b", num_tokens=2, reference_nats=2.0, reference_tokens=2),
        judge(EXAMPLES[1], "no", num_tokens=1),
    ],
    seconds=1.0,
)


def test_metrics_are_told_overall_by_tool_and_by_language() -> None:
    found = _evaluated(EVALUATION, {"judge": 0.5})
    assert (found.scores.accuracy, found.scores.num_samples) == (0.5, 2)
    assert found.metrics["judge"] == 0.5
    assert found.metrics["accuracy from"] <= 0.5 <= found.metrics["accuracy to"]
    assert found.metrics["perplexity"] == found.by_tool["email"]["perplexity"]
    # Nothing was measured of it: it is left out, not made up.
    assert "perplexity" not in found.by_tool["code"]
    assert found.by_tool["email"]["ROUGE-L"] == 1.0
    assert {name: one["samples"] for name, one in found.by_language.items()} == {"ar": 1.0}


def test_without_a_url_nobody_is_asked_to_judge() -> None:
    assert _judged(JudgeSettings(), EXAMPLES, EVALUATION) == {}


def test_a_judges_mark_is_told_with_its_interval_and_its_failures() -> None:
    with fake_judge(lambda said: "[[5]]" if said == "a b" else "?") as server:
        settings = JudgeSettings(url=server.url, api_key=SecretStr("k"))
        found = _judged(settings, EXAMPLES, EVALUATION)
    assert found == {
        "judge": 1.0,
        # Of a single one, little is known.
        "judge from": pytest.approx(0.207, abs=1e-3),
        "judge to": 1.0,
        "judged": 1,
        "unjudged": 1,
    }
    assert server.keys == {"Bearer k"}
