"""The quality score of an answer, in [0, 1], computed when it is logged (well under 1 ms).

Without a fitted scorer it is a rule: how far the answer keeps the structured-prompt format,
and whether it repeats itself. Each violation costs; a section that is missing costs most.
"""

from collections import Counter

from registry.prompts import validate

RULE_SCORER = "rule-1"
PENALTY = 0.15
REPETITION_N = 4


def score(output: str, *, target_tool: str | None) -> float:
    """The rule's score: 1 minus 0.15 for each violation, times the share of fresh 4-grams."""
    if not output.strip():
        return 0.0
    violations = validate(output, target_tool=target_tool)
    return round(max(0.0, 1 - PENALTY * len(violations)) * freshness(output), 4)


def freshness(text: str, n: int = REPETITION_N) -> float:
    """The share of distinct word n-grams (distinct-n, Li et al. 2016); 1 for short texts."""
    words = text.lower().split()
    grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    total = sum(grams.values())
    return len(grams) / total if total else 1.0
