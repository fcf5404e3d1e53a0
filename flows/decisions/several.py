"""Several challengers on trial at once: each is judged against the champion, and one may win.

Each comparison has its part of the error rate (Bonferroni), so that with a chance of `alpha` at
most any of them is promoted without being better, however many there are. Guardrails keep their
own rate for each: what they promise is promised to each challenger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from flows.decisions.experiment import Action, ExperimentDecision, ExperimentFacts, decide
from registry.settings_decisions import ExperimentSettings

Name = str | None
"""A challenger's version; None where a trial has but one."""


@dataclass(frozen=True)
class Judged:
    """What was decided about one challenger, and on what."""

    facts: ExperimentFacts
    decision: ExperimentDecision


def for_each(settings: ExperimentSettings, num: int) -> ExperimentSettings:
    """The settings by which each of `num` challengers is compared."""
    return settings.model_copy(update={"alpha": settings.alpha / num})


def judge(
    facts: Mapping[Name, ExperimentFacts], settings: ExperimentSettings
) -> dict[Name, Judged]:
    """A decision for each; where several are surely better, the one surest to be wins."""
    found = {name: Judged(each, decide(each, settings)) for name, each in facts.items()}
    ahead = {
        name: one.facts.interval.lower
        for name, one in found.items()
        if one.decision.action is Action.PROMOTE and one.facts.interval is not None
    }
    if not ahead:
        return found
    winner = max(ahead, key=lambda name: ahead[name])
    for name, one in found.items():
        if name != winner:
            outdone = replace(one.facts, outdone_by=winner)
            found[name] = Judged(outdone, decide(outdone, settings))
    return found


def share_for_all(decisions: Iterable[ExperimentDecision]) -> float | None:
    """The next share of the trial, which all divide; None unless each of them may have more."""
    shares = [decision.share for decision in decisions]
    wanted = [share for share in shares if share is not None]
    return min(wanted) if wanted and len(wanted) == len(shares) else None


def together(judged: Mapping[Name, Judged]) -> ExperimentDecision:
    """The decision about the trial as a whole, in one."""
    if len(judged) == 1:
        return next(iter(judged.values())).decision
    order = (Action.PROMOTE, Action.ROLL_BACK, Action.RETIRE, Action.WAIT, Action.RAMP)
    telling = min(judged.values(), key=lambda one: order.index(one.decision.action)).decision
    reasons = tuple(
        f"'{name}', {one.decision.action.replace('_', ' ')}: {'; '.join(one.decision.reasons)}"
        for name, one in judged.items()
    )
    return replace(telling, reasons=reasons)
