"""What to do with a challenger on trial: promote, roll back, ramp, retire or wait."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flows.decisions.guardrails import Guardrail, check_guardrails
from flows.decisions.sequential import Interval, Sample, difference
from registry.experiments import Observation
from registry.settings import ExperimentSettings

QUALITY_WEIGHT, POSITIVE_WEIGHT, LATENCY_WEIGHT = 0.5, 0.3, 0.2


class Action(StrEnum):
    """What a look at an experiment can lead to."""

    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    RAMP = "ramp"
    RETIRE = "retire"
    WAIT = "wait"


@dataclass(frozen=True)
class ArmFacts:
    """One arm so far. `p95_ms` is service time without queueing, which depends on load."""

    num_answers: int
    num_rated: int
    avg_quality: float | None
    positive_rate: float | None
    p95_ms: float | None
    composite: Sample


@dataclass(frozen=True)
class ExperimentFacts:
    """Everything the rule looks at."""

    hours: float
    share: float
    champion: ArmFacts
    challenger: ArmFacts
    interval: Interval | None
    """Of 0.5·quality + 0.3·positive, challenger minus champion, over rated answers."""
    improvement: float | None
    """Relative improvement of the overall score (see `overall_improvement`)."""
    guardrails: tuple[Guardrail, ...]


@dataclass(frozen=True)
class ExperimentDecision:
    """What to do, why, and on which numbers; `share` is set for a ramp."""

    action: Action
    reasons: tuple[str, ...]
    share: float | None
    numbers: dict[str, float | int | None]


def facts_from(
    observations: Sequence[Observation],
    *,
    started_at: datetime,
    share: float,
    settings: ExperimentSettings,
    now: datetime,
) -> ExperimentFacts:
    """Summarise an experiment's answers, given in the order they were made."""
    challengers = [item for item in observations if item.role == "challenger"]
    champions = [item for item in observations if item.role != "challenger"]
    champion, challenger = _arm(champions), _arm(challengers)
    return ExperimentFacts(
        hours=(now - started_at).total_seconds() / 3600,
        share=share,
        champion=champion,
        challenger=challenger,
        interval=difference(
            champion.composite,
            challenger.composite,
            alpha=settings.alpha,
            tuned_for=settings.min_rated / settings.shares[0],
        ),
        improvement=overall_improvement(champion, challenger),
        guardrails=check_guardrails(champions, challengers, settings),
    )


def overall_improvement(champion: ArmFacts, challenger: ArmFacts) -> float | None:
    """0.5·Δquality/quality + 0.3·Δpositive/positive - 0.2·Δp95/p95, the overall score.

    A term whose base is zero or unknown counts as nothing; None where all are.
    """
    pairs = (
        (QUALITY_WEIGHT, champion.avg_quality, challenger.avg_quality),
        (POSITIVE_WEIGHT, champion.positive_rate, challenger.positive_rate),
        (-LATENCY_WEIGHT, champion.p95_ms, challenger.p95_ms),
    )
    terms = [
        weight * (after - before) / before
        for weight, before, after in pairs
        if before and after is not None
    ]
    return math.fsum(terms) if terms else None


def decide(facts: ExperimentFacts, settings: ExperimentSettings) -> ExperimentDecision:
    """The rule: guardrails first, then the floors, then the always-valid bound."""
    alarms = [guardrail for guardrail in facts.guardrails if guardrail.evidence.alarm]
    if alarms:
        return _decision(Action.ROLL_BACK, facts, *(alarm.text for alarm in alarms))
    unmet = _unmet_floors(facts, settings)
    interval = facts.interval
    if not unmet and interval is not None:
        if interval.lower > 0 and _improved(facts, settings):
            return _decision(
                Action.PROMOTE,
                facts,
                _interval_text(interval),
                f"overall score {facts.improvement:+.1%} (at least "
                f"{settings.min_improvement:.0%} needed)",
                "no guardrail alarm",
            )
        if interval.upper < 0:
            return _decision(Action.RETIRE, facts, _interval_text(interval), "it is worse")
    if facts.hours >= settings.max_hours:
        return _decision(
            Action.RETIRE,
            facts,
            f"no decision within {settings.max_hours:g} h",
            *unmet,
            *([_interval_text(interval)] if interval else []),
        )
    share = _next_share(facts, settings)
    if share is not None:
        return _decision(
            Action.RAMP,
            facts,
            f"{facts.challenger.num_rated} rated answers and not behind: "
            f"share {facts.share:.0%} → {share:.0%}",
            share=share,
        )
    return _decision(Action.WAIT, facts, *(unmet or _undecided(facts, settings)))


def _arm(observations: Sequence[Observation]) -> ArmFacts:
    answered = [item for item in observations if not item.failed]
    rated = [item for item in answered if item.thumb is not None]
    qualities = [item.quality for item in answered if item.quality is not None]
    composite = [
        QUALITY_WEIGHT * item.quality + POSITIVE_WEIGHT * (item.thumb == 1)
        for item in rated
        if item.quality is not None
    ]
    latencies = [item.latency_ms for item in answered if item.latency_ms is not None]
    return ArmFacts(
        num_answers=len(observations),
        num_rated=len(rated),
        avg_quality=math.fsum(qualities) / len(qualities) if qualities else None,
        positive_rate=sum(item.thumb == 1 for item in rated) / len(rated) if rated else None,
        p95_ms=percentile(latencies, 0.95),
        composite=Sample.of(composite),
    )


def percentile(values: Sequence[float], fraction: float) -> float | None:
    """The value at `fraction` of the sorted values (nearest rank), None where there is none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def _unmet_floors(facts: ExperimentFacts, settings: ExperimentSettings) -> list[str]:
    unmet = []
    if facts.hours < settings.min_hours:
        unmet.append(f"{facts.hours:.1f} of {settings.min_hours:g} h have passed")
    for name, arm in (("champion", facts.champion), ("challenger", facts.challenger)):
        if arm.num_rated < settings.min_rated:
            unmet.append(f"{name} has {arm.num_rated} of {settings.min_rated} rated answers")
    return unmet


def _improved(facts: ExperimentFacts, settings: ExperimentSettings) -> bool:
    return facts.improvement is not None and facts.improvement >= settings.min_improvement


def _next_share(facts: ExperimentFacts, settings: ExperimentSettings) -> float | None:
    """The next step of the ramp, where each step has had its rated answers and none is behind."""
    passed = [share for share in settings.shares if share <= facts.share]
    later = [share for share in settings.shares if share > facts.share]
    needed = settings.ramp_min_rated * max(1, len(passed))
    ready = facts.challenger.num_rated >= needed and facts.interval is not None
    if not later or not ready or facts.interval is None or facts.interval.estimate < 0:
        return None
    return later[0]


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
    interval = facts.interval
    numbers: dict[str, float | int | None] = {
        "hours": round(facts.hours, 3),
        "share": facts.share,
        "improvement": facts.improvement,
        "difference": interval.estimate if interval else None,
        "lower": interval.lower if interval else None,
        "upper": interval.upper if interval else None,
    }
    for name, arm in (("champion", facts.champion), ("challenger", facts.challenger)):
        numbers |= {
            f"{name}_answers": arm.num_answers,
            f"{name}_rated": arm.num_rated,
            f"{name}_quality": arm.avg_quality,
            f"{name}_positive_rate": arm.positive_rate,
            f"{name}_p95_ms": arm.p95_ms,
        }
    for guardrail in facts.guardrails:
        numbers[f"{guardrail.name}_log_e"] = guardrail.evidence.log_e_value
        numbers[f"{guardrail.name}_line"] = guardrail.evidence.line
    return ExperimentDecision(action, reasons, share, numbers)
