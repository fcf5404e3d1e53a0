"""What is said of a version that prompting with examples would have matched."""

from __future__ import annotations

from flows.decisions.gate import GateDecision, Scores
from flows.learner import FEW_SHOT, Evaluated
from flows.registration import CANDIDATE, beside_few_shot

PASSED = GateDecision(True, ("overall: accuracy 0.500 → 0.700",))


def _evaluated(accuracy: float) -> Evaluated:
    return Evaluated(scores=Scores(accuracy, 50))


def test_a_candidate_that_does_not_beat_examples_in_the_prompt_says_so() -> None:
    decision = beside_few_shot(PASSED, {CANDIDATE: _evaluated(0.7), FEW_SHOT: _evaluated(0.72)})
    assert decision.passed
    assert decision.reasons == (
        *PASSED.reasons,
        "no better than the base model with examples in its prompt: accuracy 0.720 against 0.700",
    )


def test_a_candidate_that_beats_them_says_nothing_of_it() -> None:
    assert (
        beside_few_shot(PASSED, {CANDIDATE: _evaluated(0.7), FEW_SHOT: _evaluated(0.5)}) is PASSED
    )
    assert beside_few_shot(PASSED, {CANDIDATE: _evaluated(0.7)}) is PASSED
