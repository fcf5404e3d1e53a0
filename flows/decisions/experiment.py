"""What to do with a challenger on trial: promote, roll back, ramp, retire or wait.

Also before anyone sees it (the shadow phase), and after it was promoted (the hold-back).
"""

from dataclasses import dataclass
from enum import StrEnum

from flows.decisions.guardrails import Evidence
from flows.decisions.sequential import Interval
from registry.experiment_statistics import Stage
from registry.settings_decisions import ExperimentSettings, Step


class Action(StrEnum):
    """What a look at an experiment can lead to."""

    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    RAMP = "ramp"
    RETIRE = "retire"
    CONFIRM = "confirm"
    """A promotion has stood its time."""
    START = "start"
    """A version that waited is put on trial."""
    WAIT = "wait"


@dataclass(frozen=True)
class ArmFacts:
    """One arm so far. `p95_ms` is service time without queueing, which depends on load.

    `num_users`: how many equally active people those with a rating are worth. Means are over
    the same mixture of share periods in both arms.
    """

    num_answers: int
    num_failed: int
    num_rated: int
    num_users: float
    avg_quality: float | None
    positive_rate: float | None
    p95_ms: float | None


@dataclass(frozen=True)
class ExperimentFacts:
    """Everything the rule looks at. After a promotion the new champion is the challenger."""

    stage: Stage
    hours: float
    share: float
    step_hours: float
    """With the present share."""
    step_answers: int
    step_rated: int
    champion: ArmFacts
    challenger: ArmFacts
    interval: Interval | None
    """Of 0.5·quality + 0.3·positive, challenger minus champion."""
    improvement: float | None
    """Relative improvement of the overall score (`comparison.relative_improvement`)."""
    guardrails: tuple[Evidence, ...]
    split: Evidence | None
    """Whether people are split between the arms as they should be."""
    is_frozen: bool = False
    """A person has said that nothing is to change, but for a guardrail."""
    refusal: str | None = None
    """Why the version on trial can answer nobody."""
    outdone_by: str | None = None
    """Of several challengers, the one that has won at this look."""


@dataclass(frozen=True)
class ExperimentDecision:
    """What to do, why, and on which numbers; `share` is set for a ramp."""

    action: Action
    reasons: tuple[str, ...]
    share: float | None
    numbers: dict[str, float | int | None]


def decide(facts: ExperimentFacts, settings: ExperimentSettings) -> ExperimentDecision:
    """The rule. Guardrails first; nothing else where people are not split as they should be."""
    alarms = [guardrail.text for guardrail in facts.guardrails if guardrail.alarm]
    if facts.refusal is not None:
        alarms.insert(0, facts.refusal)
    if alarms:
        return _decision(Action.ROLL_BACK, facts, *alarms)
    if facts.is_frozen:
        return _decision(Action.WAIT, facts, "frozen by hand: only a guardrail can end it")
    if facts.stage == "holdback":
        return _after_promotion(facts, settings)
    if facts.split is not None and facts.split.alarm:
        return _unfair(facts, settings, facts.split.text)
    if facts.stage == "shadow":
        return _in_shadow(facts, settings)
    return _on_trial(facts, settings)


def next_step(facts: ExperimentFacts, settings: ExperimentSettings) -> Step | None:
    """The step after the present one, where its conditions are met; None where not, or last."""
    steps = settings.steps
    later = [step for step in steps if step.share > facts.share]
    current = [step for step in steps if step.share <= facts.share]
    if not later or (current and _lacking(facts, current[-1])):
        return None
    return later[0]


def _on_trial(facts: ExperimentFacts, settings: ExperimentSettings) -> ExperimentDecision:
    if facts.outdone_by is not None:
        return _decision(Action.RETIRE, facts, f"'{facts.outdone_by}' has won")
    unmet = _unmet_floors(facts, settings)
    interval = facts.interval
    if interval is not None and not unmet and interval.lower > 0 and _improved(facts, settings):
        return _decision(
            Action.PROMOTE,
            facts,
            _interval_text(interval),
            f"overall score {facts.improvement:+.1%} (at least "
            f"{settings.min_improvement:.0%} needed)",
            "no guardrail alarm",
        )
    if _surely_worse(facts, settings) and interval is not None:
        return _decision(Action.RETIRE, facts, _interval_text(interval), "it is worse")
    if facts.hours >= settings.max_hours:
        return _decision(
            Action.RETIRE,
            facts,
            f"no decision within {settings.max_hours:g} h",
            *unmet,
            *([_interval_text(interval)] if interval else []),
        )
    step = next_step(facts, settings)
    if step is not None and interval is not None and interval.estimate >= 0:
        leaning = [guardrail.text for guardrail in facts.guardrails if guardrail.leans]
        if not leaning:
            return _ramp(facts, step, f"{facts.step_rated} rated answers and not behind")
        unmet.append(f"no more traffic while this may be an alarm soon: {'; '.join(leaning)}")
    return _decision(Action.WAIT, facts, *(unmet or _undecided(facts, settings)))


def _in_shadow(facts: ExperimentFacts, settings: ExperimentSettings) -> ExperimentDecision:
    """Nobody sees it yet: what can be known is whether it fails, is slow, or scores worse."""
    interval = facts.interval
    if interval is not None and interval.upper < 0:
        return _decision(
            Action.ROLL_BACK, facts, _interval_text(interval), "it is worse in the shadow phase"
        )
    step = next_step(facts, settings)
    if step is not None:
        return _ramp(facts, step, f"{facts.step_answers} shadow answers and not worse")
    if facts.hours >= settings.max_hours:
        return _decision(
            Action.RETIRE, facts, f"no decision within {settings.max_hours:g} h, in shadow"
        )
    return _decision(Action.WAIT, facts, *_lacking(facts, settings.steps[0]))


def _after_promotion(facts: ExperimentFacts, settings: ExperimentSettings) -> ExperimentDecision:
    """The promotion stands, unless those who kept the previous champion are surely better off."""
    if _surely_worse(facts, settings) and facts.interval is not None:
        return _decision(
            Action.ROLL_BACK,
            facts,
            _interval_text(facts.interval),
            "those who kept the previous champion are better off",
        )
    if facts.hours >= settings.holdback_hours:
        return _decision(
            Action.CONFIRM,
            facts,
            f"nothing spoke against the promotion in {settings.holdback_hours:g} h",
            *([_interval_text(facts.interval)] if facts.interval else []),
        )
    return _decision(
        Action.WAIT,
        facts,
        f"{facts.hours:.1f} of {settings.holdback_hours:g} h after the promotion have passed",
    )


def _unfair(facts: ExperimentFacts, settings: ExperimentSettings, text: str) -> ExperimentDecision:
    """Who answers whom is not chance alone: nothing can be concluded, but time can run out."""
    reasons = (f"sample ratio mismatch: {text}", "nothing is decided on such a comparison")
    over = facts.hours >= settings.max_hours
    return _decision(Action.RETIRE if over else Action.WAIT, facts, *reasons)


def _ramp(facts: ExperimentFacts, step: Step, why: str) -> ExperimentDecision:
    text = f"{why}: share {facts.share:.0%} → {step.share:.0%}"
    return _decision(Action.RAMP, facts, text, share=step.share)


def _lacking(facts: ExperimentFacts, step: Step) -> list[str]:
    """What the present step still lacks."""
    wanted = (
        (facts.step_hours, step.min_hours, "h in this step"),
        (facts.step_answers, step.min_answers, "answers in this step"),
        (facts.step_rated, step.min_rated, "rated answers in this step"),
    )
    return [f"{have:g} of {need:g} {what}" for have, need, what in wanted if have < need]


def _unmet_floors(facts: ExperimentFacts, settings: ExperimentSettings) -> list[str]:
    unmet = []
    if facts.hours < settings.min_hours:
        unmet.append(f"{facts.hours:.1f} of {settings.min_hours:g} h have passed")
    for name, arm in (("champion", facts.champion), ("challenger", facts.challenger)):
        if arm.num_rated < settings.min_rated:
            unmet.append(f"{name} has {arm.num_rated} of {settings.min_rated} rated answers")
        elif arm.num_users < settings.min_users:
            unmet.append(
                f"{name}'s ratings are worth those of {arm.num_users:.0f} people "
                f"({settings.min_users} needed)"
            )
    return unmet


def _surely_worse(facts: ExperimentFacts, settings: ExperimentSettings) -> bool:
    """The bound holds at every look: no floor on time is needed to stop what is worse."""
    both = (facts.champion, facts.challenger)
    return (
        facts.interval is not None
        and facts.interval.upper < 0
        and facts.hours >= settings.settle_hours
        and all(arm.num_rated >= settings.guardrail_min_rated for arm in both)
        and all(arm.num_users >= settings.min_users for arm in both)
    )


def _improved(facts: ExperimentFacts, settings: ExperimentSettings) -> bool:
    return facts.improvement is not None and facts.improvement >= settings.min_improvement


def _undecided(facts: ExperimentFacts, settings: ExperimentSettings) -> list[str]:
    texts = [] if facts.interval is None else [_interval_text(facts.interval)]
    if not _improved(facts, settings) and facts.improvement is not None:
        texts.append(
            f"overall score {facts.improvement:+.1%} ({settings.min_improvement:.0%} needed)"
        )
    return texts or ["nothing can be compared yet"]


def _interval_text(interval: Interval) -> str:
    return (
        f"difference {interval.estimate:+.3f}, surely between "
        f"{interval.lower:+.3f} and {interval.upper:+.3f}"
    )


def _decision(
    action: Action, facts: ExperimentFacts, *reasons: str, share: float | None = None
) -> ExperimentDecision:
    return ExperimentDecision(action, reasons, share, numbers(facts))


def numbers(facts: ExperimentFacts) -> dict[str, float | int | None]:
    """The facts as named numbers, for tables and plots."""
    interval = facts.interval
    found: dict[str, float | int | None] = {
        "hours": round(facts.hours, 3),
        "share": facts.share,
        "improvement": facts.improvement,
        "difference": interval.estimate if interval else None,
        "lower": interval.lower if interval else None,
        "upper": interval.upper if interval else None,
    }
    for name, arm in (("champion", facts.champion), ("challenger", facts.challenger)):
        found |= {
            f"{name}_answers": arm.num_answers,
            f"{name}_failed": arm.num_failed,
            f"{name}_rated": arm.num_rated,
            f"{name}_users": round(arm.num_users, 1),
            f"{name}_quality": arm.avg_quality,
            f"{name}_positive_rate": arm.positive_rate,
            f"{name}_p95_ms": arm.p95_ms,
        }
    for evidence in (*facts.guardrails, *((facts.split,) if facts.split else ())):
        found[f"{evidence.name}_log_e"] = evidence.log_e_value
        found[f"{evidence.name}_line"] = evidence.line
    return found
