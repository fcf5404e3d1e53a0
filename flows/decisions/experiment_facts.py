"""Reads an experiment from the registry, and makes of it what the rule looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from sqlmodel import Session

from flows.decisions import comparison as arms
from flows.decisions import guardrails
from flows.decisions.comparison import Comparison, Moments, compare, relative_improvement
from flows.decisions.experiment import ArmFacts, ExperimentFacts
from flows.decisions.guardrails import Evidence
from flows.decisions.sequential import (
    Array,
    Interval,
    log_e_worse,
    margin,
    split_log_e,
    tightest_at,
)
from registry.experiment_statistics import (
    AnswerFacts,
    PriorSums,
    SharePeriod,
    Stage,
    UserSums,
    answers,
    prior_sums,
    settled,
    share_periods,
    user_sums,
)
from registry.models import Experiment
from registry.settings_decisions import ExperimentSettings


@dataclass(frozen=True)
class Seen:
    """What was read of one experiment as of one moment."""

    stage: Stage
    periods: Sequence[SharePeriod]
    """Of the comparison: once the first hours are over, without them."""
    all_periods: Sequence[SharePeriod]
    users: Sequence[UserSums]
    answers: Sequence[AnswerFacts]
    priors: Sequence[PriorSums] = ()
    """What people's answers of before came to."""


def stage_of(experiment: Experiment) -> Stage:
    """Where the experiment stands: after a promotion, in the shadow, or on trial."""
    if experiment.kind == "holdback":
        return "holdback"
    return "shadow" if experiment.share == 0 else "trial"


def read(
    session: Session,
    experiment: Experiment,
    *,
    stage: Stage,
    settings: ExperimentSettings,
    now: datetime,
    version: str | None = None,
) -> Seen:
    """The experiment as of `now`. `version`: the challenger meant, where there are several."""
    everything = share_periods(session, experiment, until=now)
    if stage == "trial":
        # What counts begins with the first answer that somebody saw.
        everything = [period for period in everything if period.share > 0] or everything
    first = everything[0].since
    settles_at = first + timedelta(hours=settings.settle_hours)
    periods = everything
    if stage == "trial" and now >= settles_at:
        periods = settled(everything, settles_at)
    return Seen(
        stage=stage,
        periods=periods,
        all_periods=everything,
        users=user_sums(
            session,
            experiment_id=experiment.id,
            stage=stage,
            periods=periods,
            until=now,
            max_per_user_day=settings.max_per_user_day,
            version=version,
        ),
        answers=answers(
            session,
            experiment_id=experiment.id,
            stage=stage,
            since=first,
            until=now,
            version=version,
        ),
        priors=prior_sums(session, experiment=experiment, days=settings.prior_days)
        if settings.prior_days
        else (),
    )


def facts_from(seen: Seen, *, settings: ExperimentSettings, now: datetime) -> ExperimentFacts:
    """Summarise what was read."""
    period = seen.all_periods[-1]
    moments = moments_of(seen)
    counted = arms.SCORED if seen.stage == "shadow" else arms.RATED
    with np.errstate(invalid="ignore", divide="ignore"):
        comparison = compare(moments, counted=counted)
    control, treatment = (_arm(seen, moments, comparison, arm) for arm in (0, 1))
    slower = p95_ratio(seen)
    last = [user for user in seen.users if user.period == len(seen.periods) - 1 and user.arm == 1]
    return ExperimentFacts(
        stage=seen.stage,
        hours=hours_between(seen.all_periods[0].since, now),
        share=period.share,
        step_hours=hours_between(period.since, now),
        step_answers=sum(a.is_treatment and a.created_at >= period.since for a in seen.answers),
        step_rated=sum(user.rated for user in last),
        champion=control,
        challenger=treatment,
        interval=_interval(comparison, settings),
        improvement=_improvement(comparison, slower),
        guardrails=_guardrails(seen, comparison, control, treatment, settings),
        split=_split(seen, settings),
    )


def hours_between(earlier: datetime, later: datetime) -> float:
    """Never negative: a clock may have stepped back."""
    return max(timedelta(0), later - earlier) / timedelta(hours=1)


def moments_of(seen: Seen) -> Moments:
    """Every user's sums as arrays."""
    names = {unit: number for number, unit in enumerate(dict.fromkeys(u.unit for u in seen.users))}
    priors = priors_of(seen.priors)
    sums = np.zeros((len(names), len(seen.periods), 2, arms.NUM_SUMS))
    for user in seen.users:
        sums[names[user.unit], user.period, user.arm] = (
            user.scored,
            user.quality,
            user.rated,
            user.positive,
            user.negative,
            user.rated_scored,
            user.rated_quality,
            user.rated * priors.get(user.unit, 0.0),
        )
    return Moments.of(sums)


def priors_of(known: Sequence[PriorSums]) -> dict[str, float]:
    """By unit, what `comparison.prior` makes of the answers of before."""
    each = np.array(
        [(before.quality, before.scored, before.positive, before.rated) for before in known]
    ).reshape(-1, 4)
    found = arms.prior(*each.T)
    return {before.unit: float(value) for before, value in zip(known, found, strict=True)}


def p95_ratio(seen: Seen) -> float | None:
    """Δp95/p95 within the periods, weighted like the comparison; None where nothing compares."""
    weighted, weights = 0.0, 0.0
    for period in seen.all_periods:
        both = [
            [
                answer.latency_ms
                for answer in seen.answers
                if answer.latency_ms is not None
                and answer.is_treatment == treated
                and _within(answer, period)
            ]
            for treated in (False, True)
        ]
        before, after = (percentile(values, 0.95) for values in both)
        if before and after is not None:
            weight = math.prod(map(len, both)) / sum(map(len, both))
            weighted, weights = weighted + weight * (after - before) / before, weights + weight
    return weighted / weights if weights else None


def percentile(values: Sequence[float], fraction: float) -> float | None:
    """The value at `fraction` of the sorted values (nearest rank), None where there is none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def _within(answer: AnswerFacts, period: SharePeriod) -> bool:
    return answer.created_at >= period.since and (
        period.until is None or answer.created_at < period.until
    )


def _arm(seen: Seen, moments: Moments, comparison: Comparison, arm: int) -> ArmFacts:
    totals = moments.totals.sum(axis=0)[arm]
    own = [answer for answer in seen.answers if answer.is_treatment == bool(arm)]
    latencies = [answer.latency_ms for answer in own if answer.latency_ms is not None]
    return ArmFacts(
        num_answers=len(own),
        num_failed=sum(answer.failed for answer in own),
        num_rated=int(totals[arms.RATED]),
        num_users=float(comparison.num_users[arm]),
        avg_quality=_known(comparison.quality[arm]),
        positive_rate=_known(comparison.positive[arm]),
        p95_ms=percentile(latencies, 0.95),
    )


def _interval(comparison: Comparison, settings: ExperimentSettings) -> Interval | None:
    variance = comparison.variance
    if not np.isfinite(variance) or variance <= 0:
        return None
    half = float(margin(variance, _progress(variance, settings), alpha=settings.alpha))
    estimate = float(comparison.estimate)
    return Interval(estimate, estimate - half, estimate + half)


def _progress(variance: Array, settings: ExperimentSettings) -> Array:
    first = next(step.share for step in settings.steps if step.share > 0)
    return arms.progress(
        variance,
        tuned_for=settings.min_rated * max(1 - first, 0.5),
        tightest=tightest_at(settings.alpha),
    )


def _improvement(comparison: Comparison, slower: float | None) -> float | None:
    if np.isnan(comparison.quality).all() and np.isnan(comparison.positive).all():
        return None
    with np.errstate(invalid="ignore"):
        return float(relative_improvement(comparison, 0.0 if slower is None else slower))


def _guardrails(
    seen: Seen,
    comparison: Comparison,
    control: ArmFacts,
    treatment: ArmFacts,
    settings: ExperimentSettings,
) -> tuple[Evidence, ...]:
    treated = np.array([answer.is_treatment for answer in seen.answers], dtype=bool)
    failed = np.array([answer.failed for answer in seen.answers], dtype=bool)
    timed = [answer for answer in seen.answers if answer.latency_ms is not None]
    found = [
        guardrails.errors(treated, failed, alpha=settings.guardrail_alpha),
        guardrails.latency(
            np.array([answer.is_treatment for answer in timed], dtype=bool),
            np.array([answer.latency_ms for answer in timed], dtype=np.float64),
            tolerance=settings.latency_tolerance,
            num_reference=settings.guardrail_min_reference,
            alpha=settings.guardrail_alpha,
        ),
        _negative(comparison, control, treatment, settings),
    ]
    return tuple(guardrail for guardrail in found if guardrail is not None)


def _negative(
    comparison: Comparison, control: ArmFacts, treatment: ArmFacts, settings: ExperimentSettings
) -> Evidence | None:
    """Clustered by user like the comparison: people differ in how easily they are displeased."""
    variance = comparison.negative_variance
    fewest = min(control.num_rated, treatment.num_rated)
    if fewest < settings.guardrail_min_rated or not np.isfinite(variance) or variance <= 0:
        return None
    z = (comparison.negative - settings.negative_tolerance) / np.sqrt(variance)
    log_e = float(log_e_worse(z, _progress(variance, settings)))
    return Evidence(
        "negative_feedback",
        log_e,
        -math.log(settings.guardrail_alpha),
        f"negative feedback: {float(comparison.negative):+.1%} of ratings against the champion "
        f"(up to {settings.negative_tolerance:.0%} more is tolerated)",
        now=log_e,
    )


def _split(seen: Seen, settings: ExperimentSettings) -> Evidence | None:
    """Whether people are split as they should be; each counts once, when first seen."""
    if seen.stage == "shadow":
        return None
    first: dict[str, tuple[int, int]] = {}
    for user in seen.users:
        where = (user.period, user.arm)
        first[user.unit] = min(where, first.get(user.unit, where))
    log_e, texts = 0.0, []
    for number, period in enumerate(seen.periods):
        share = 1 - period.share if seen.stage == "holdback" else period.challenger_share
        places = [arm for at, arm in first.values() if at == number]
        if not places or not 0 < share < 1:
            continue
        log_e += float(
            split_log_e(np.array(float(sum(places))), np.array(float(len(places))), share=share)
        )
        texts.append(f"{sum(places)} of {len(places)} new people at a share of {share:.0%}")
    return Evidence(
        "split", log_e, -math.log(settings.split_alpha), "people split: " + ", ".join(texts)
    )


def _known(value: Array) -> float | None:
    return None if np.isnan(value) else float(value)
