"""Decisions as they are kept, and made again from what was kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from flows.decisions.experiment import Action, ExperimentDecision, ExperimentFacts, decide
from registry.settings_decisions import ExperimentSettings

_facts = TypeAdapter(ExperimentFacts)
SEEN = "seen"


def stored(decision: ExperimentDecision, facts: Mapping[str, object]) -> dict[str, Any]:
    """What is kept of a look: its numbers by name, and all that the rule looked at."""
    return {**decision.numbers, SEEN: dict(facts), "next_share": decision.share}


def seen_in(row_facts: Mapping[str, Any]) -> ExperimentFacts | None:
    """What the rule looked at; None for a look of the time before it was kept."""
    kept = row_facts.get(SEEN)
    return None if kept is None else _facts.validate_python(kept)


def decide_again(
    row_facts: Mapping[str, Any], settings: ExperimentSettings
) -> ExperimentDecision | None:
    """The decision on the facts that were kept, by the rule as it is now."""
    facts = seen_in(row_facts)
    return None if facts is None else decide(facts, settings)


def is_same(
    again: ExperimentDecision, *, action: str, reasons: list[str], row_facts: Mapping[str, Any]
) -> bool:
    """Whether a decision made again is the one that was kept."""
    return (
        again.action == Action(action)
        and list(again.reasons) == reasons
        and again.share == row_facts.get("next_share")
    )
