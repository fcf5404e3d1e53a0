"""What is said of an experiment in words, on its page and on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from registry import experiments, holdback
from registry.models import Experiment, ExperimentDecision

MAX_ROWS = 40
"""Looks in the table: those that changed something, and the last."""
BASE = "the base model"


def title(experiment: Experiment, tried: Sequence[str] = ()) -> str:
    """What is compared with what. `tried`: all challengers, where they are several."""
    champion = experiment.champion or BASE
    challenger = ", ".join(tried) or experiment.challenger or BASE
    if experiment.kind == experiments.ITSELF:
        return f"{champion} on trial against itself"
    if experiment.kind == holdback.KIND:
        return f"{champion}, promoted, on watch against {challenger}"
    return f"{challenger} on trial against {champion}"


def status_text(experiment: Experiment) -> str:
    """Where it stands, in words."""
    if experiment.status == "promoted" and experiment.kind == holdback.KIND:
        return "promotion confirmed"
    return experiment.status.replace("_", " ")


def sentence(experiment: Experiment, looks: Sequence[ExperimentDecision]) -> str:
    """The state of the experiment in one sentence; of several challengers, one for each."""
    latest = {look.version: look for look in looks}
    if not latest:
        return "The trial has begun; nobody has looked at it yet."
    if experiment.kind == experiments.ITSELF:
        return _of_itself(experiment, looks[-1])
    if len(latest) == 1:
        return _of_one(experiment, looks[-1])
    return " ".join(f"{version}: {_of_one(experiment, last)}" for version, last in latest.items())


def _of_itself(experiment: Experiment, last: ExperimentDecision) -> str:
    reason = last.reasons["reasons"][0]
    if experiment.status == "running":
        return f"The champion is on trial against itself: nothing should be found ({reason})."
    if last.action in ("wait", "ramp") or reason.startswith("no decision within"):
        return f"No difference was found, as there is none ({experiment.reason})."
    return (
        f"A difference was found where there is none ({reason}): by chance, or something treats "
        "the two groups of people differently."
    )


def _of_one(experiment: Experiment, last: ExperimentDecision) -> str:
    if experiment.kind == holdback.KIND:
        return _after(last)
    facts = last.facts
    action = "by hand" if _was_ended_by_hand(experiment, last) else last.action
    reason = last.reasons["reasons"][0]
    better = facts.get("improvement")
    gain = "" if better is None else f" It scores {abs(better):.1%} {_word(better)} overall."
    return {
        "by hand": f"A person ended this trial: {experiment.reason}.",
        "promote": f"The new version is better beyond chance and now serves everyone.{gain}",
        "roll_back": f"The new version was taken off at once, because it did harm ({reason}).",
        "retire": f"The new version was not kept ({reason}); what served before goes on.",
        "ramp": f"The new version is not behind, so more people get it.{gain}",
        "wait": f"It is too early to tell: {reason}.{gain}",
    }.get(action, f"{action}: {reason}")


def telling(looks: Sequence[ExperimentDecision]) -> list[tuple[datetime, str, str]]:
    """Looks that changed something or were the first with new reasons, and the last; in order."""
    ends = {id(own[place]) for own in by_version(looks).values() for place in (0, -1)}
    chosen = [look for look in looks if look.action != "wait" or id(look) in ends]
    return [
        (look.decided_at, look.action.replace("_", " "), _reasons(look))
        for look in chosen[-MAX_ROWS:]
    ]


def _reasons(look: ExperimentDecision) -> str:
    about = "" if look.version is None else f"{look.version}: "
    return about + "; ".join(look.reasons["reasons"])


def by_version(
    looks: Sequence[ExperimentDecision],
) -> dict[str | None, list[ExperimentDecision]]:
    """The looks at each challenger; None where it is the only one."""
    found: dict[str | None, list[ExperimentDecision]] = {}
    for look in looks:
        found.setdefault(look.version, []).append(look)
    return found


def _after(last: ExperimentDecision) -> str:
    reason = last.reasons["reasons"][0]
    return {
        "confirm": "The promotion has stood its time: everyone has the new version now.",
        "roll_back": f"The promotion was taken back ({reason}).",
    }.get(last.action, f"The new version serves; a few people keep the old one: {reason}.")


def _was_ended_by_hand(experiment: Experiment, last: ExperimentDecision) -> bool:
    return experiment.status != "running" and last.action in ("wait", "ramp")


def _word(better: float) -> str:
    return "better" if better >= 0 else "worse"
