"""The base with examples in its prompt: what a version must beat to have been worth training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.encoding import Example
from training.evaluation.suite import EvalExample

NUM_SHOTS = 3
FEW_SHOT = "few-shot"
"""The name of the arm."""


def with_shots(
    questions: Sequence[EvalExample], examples: Sequence[Example], *, number: int = NUM_SHOTS
) -> list[EvalExample]:
    """`questions` with up to `number` answered examples before each, of its own tool first.

    The examples are those that training learned from, corrections before others, in the
    order of their ids: as good a prompt as one could write by hand from the same data.
    """
    ranked = sorted(examples, key=lambda each: (each.source != "corrected", each.id))
    ranked = [each for each in ranked if each.label is not False]
    by_tool: dict[str | None, list[Example]] = {}
    for example in ranked:
        by_tool.setdefault(example.target_tool, []).append(example)
    found = []
    for question in questions:
        own = by_tool.get(question.target_tool, ())
        others = (each for each in ranked if each.target_tool != question.target_tool)
        chosen = [*own, *others][:number]
        found.append(
            EvalExample(
                id=question.id,
                messages=_joined(question.messages, chosen),
                reference=question.reference,
                target_tool=question.target_tool,
                language=question.language,
            )
        )
    return found


def _joined(
    asked: Sequence[Mapping[str, Any]], shots: Sequence[Example]
) -> tuple[Mapping[str, Any], ...]:
    """The question's system turns, the shots without theirs, and the rest of the question."""
    system = [turn for turn in asked if turn["role"] == "system"]
    rest = [turn for turn in asked if turn["role"] != "system"]
    shown = [turn for shot in shots for turn in shot.messages if turn["role"] != "system"]
    return (*system, *shown, *rest)
