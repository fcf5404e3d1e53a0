"""The quality score of an answer, in [0, 1], computed when it is logged (well under 1 ms).

Where a fitted scorer is active it is the chance that people like the answer. Without one it
is a rule: how far the answer keeps the structured-prompt format, and whether it repeats
itself. Each violation costs; a section that is missing costs most. No rule can judge the turns
of a conversation: without a scorer that was tried on such they have no score.
"""

from dataclasses import dataclass

from registry.features import Sample, freshness
from registry.prompts import validate
from registry.scorer import Reason, Scorer

RULE_SCORER = "rule-1"
PENALTY = 0.15


@dataclass(frozen=True)
class Score:
    """What an answer is worth, and who says so."""

    value: float
    scorer_version: str


@dataclass(frozen=True)
class ActiveScorer:
    """A fitted scorer under the name that its scores carry."""

    version: str
    scorer: Scorer


def judge(sample: Sample, active: ActiveScorer | None) -> Score | None:
    """The score of an answer: the active scorer's, else the rule's. An empty answer is worth 0."""
    if sample.output.strip() and active is not None and active.scorer.may_score(sample):
        return Score(round(active.scorer.score(sample), 4), active.version)
    if sample.is_conversation:
        return None
    return Score(score(sample.output, target_tool=sample.target_tool), RULE_SCORER)


def explain(sample: Sample, active: ActiveScorer | None, *, top: int = 10) -> tuple[Reason, ...]:
    """What moved an answer's score most: features of the active scorer, else the rule's faults.

    The rule knows no odds: each fault's effect is what it takes off the score.
    """
    if active is not None and sample.output.strip() and active.scorer.may_score(sample):
        return active.scorer.explain(sample, top=top)
    if sample.is_conversation:
        return ()
    faults = validate(sample.output, target_tool=sample.target_tool)
    return tuple(Reason(fault.message, 1.0, -PENALTY) for fault in faults[:top])


def score(output: str, *, target_tool: str | None) -> float:
    """The rule's score: 1 minus 0.15 for each violation, times the share of fresh 4-grams."""
    if not output.strip():
        return 0.0
    violations = validate(output, target_tool=target_tool)
    return round(max(0.0, 1 - PENALTY * len(violations)) * freshness(output), 4)
