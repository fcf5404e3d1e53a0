"""Reads an experiment from the registry, and makes of it what the rule looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from sqlmodel import Session

from flows.decisions import comparison as arms
from flows.decisions import guardrails
from flows.decisions.comparison import Comparison, Moments, compare, relative_improvement
from flows.decisions.experiment import ArmFacts, ExperimentFacts
from flows.decisions.guardrails import Evidence
from flows.decisions.people import Units
from flows.decisions.sequential import (
    Array,
    Interval,
    log_e_worse,
    margin,
    split_log_e,
    tightest_at,
)
from registry import trial_rows
from registry.experiment_statistics import (
    ANSWERS,
    SharePeriod,
    Stage,
    counted,
    settled,
    share_periods,
    user_sums,
)
from registry.models import Experiment
from registry.reading import MOMENT
from registry.settings_decisions import ExperimentSettings


@dataclass(frozen=True)
class Seen:
    """What was read of one experiment as of one moment."""

    stage: Stage
    periods: Sequence[SharePeriod]
    """Of the comparison: once the first hours are over, without them."""
    all_periods: Sequence[SharePeriod]
    users: pl.DataFrame
    """As `experiment_statistics.USER_SUMS`."""
    answers: pl.DataFrame
    """As `experiment_statistics.ANSWERS`."""
    priors: pl.DataFrame
    """As `trial_rows.PRIORS`: what people's answers of before came to."""


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
    data = trial_rows.read(session, experiment, prior_days=settings.prior_days)
    found = counted(data.rows, stage=stage, since=first, until=now, version=version)
    return Seen(
        stage=stage,
        periods=periods,
        all_periods=everything,
        users=user_sums(
            found, periods=periods, until=now, max_per_user_day=settings.max_per_user_day
        ),
        answers=found.select(ANSWERS.names()),
        priors=data.priors,
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
    is_last = (pl.col("period") == len(seen.periods) - 1) & (pl.col("arm") == 1)
    in_step = pl.col("is_treatment") & (pl.col("created_at") >= period.since)
    return ExperimentFacts(
        stage=seen.stage,
        hours=hours_between(seen.all_periods[0].since, now),
        share=period.share,
        step_hours=hours_between(period.since, now),
        step_answers=seen.answers.select(in_step.sum()).item(),
        step_rated=int(seen.users.filter(is_last)["rated"].sum()),
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
    users = seen.users.join(priors_of(seen.priors), on="unit", how="left", maintain_order="left")
    columns = users.select(
        "scored",
        "quality",
        "rated",
        "positive",
        "negative",
        "rated_scored",
        "rated_quality",
        (pl.col("rated") * pl.col("prior").fill_null(0.0)).alias("rated_prior"),
    )
    unit = users.select(pl.col("unit").rank("dense") - 1).to_series().to_numpy()
    sums = np.zeros((users["unit"].n_unique(), len(seen.periods), 2, arms.NUM_SUMS))
    sums[unit, users["period"].to_numpy(), users["arm"].to_numpy()] = columns.to_numpy()
    return Moments.of(sums)


def priors_of(known: pl.DataFrame) -> pl.DataFrame:
    """By unit, what `comparison.prior` makes of the answers of before."""
    each = known.select("quality", "scored", "positive", "rated").to_numpy().astype(np.float64)
    return known.select("unit", prior=pl.Series(arms.prior(*each.T), dtype=pl.Float64))


def p95_ratio(seen: Seen) -> float | None:
    """Δp95/p95 within the periods, weighted like the comparison; None where nothing compares."""
    weighted, weights = 0.0, 0.0
    timed = seen.answers.filter(pl.col("latency_ms").is_not_null())
    for period in seen.all_periods:
        within = timed.filter(
            pl.col("created_at").is_between(
                period.since, period.until or datetime.max.replace(tzinfo=UTC), closed="left"
            )
        )
        both = [_latencies(within, arm) for arm in (0, 1)]
        before, after = (percentile(values, 0.95) for values in both)
        if before and after is not None:
            weight = math.prod(map(len, both)) / sum(map(len, both))
            weighted, weights = weighted + weight * (after - before) / before, weights + weight
    return weighted / weights if weights else None


def _latencies(found: pl.DataFrame, arm: int) -> Array:
    own = found.filter(pl.col("is_treatment") == bool(arm))["latency_ms"]
    return own.drop_nulls().to_numpy()


def percentile(values: Array, fraction: float) -> float | None:
    """The value at `fraction` of the sorted values (nearest rank), None where there is none."""
    if not values.size:
        return None
    return float(np.quantile(values, fraction, method="inverted_cdf"))


def _arm(seen: Seen, moments: Moments, comparison: Comparison, arm: int) -> ArmFacts:
    totals = moments.totals.sum(axis=0)[arm]
    own = seen.answers.filter(pl.col("is_treatment") == bool(arm))
    return ArmFacts(
        num_answers=own.height,
        num_failed=int(own["failed"].sum()),
        num_rated=int(totals[arms.RATED]),
        num_users=float(comparison.num_users[arm]),
        avg_quality=_known(comparison.quality[arm]),
        positive_rate=_known(comparison.positive[arm]),
        p95_ms=percentile(_latencies(own, arm), 0.95),
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
    if np.isnan(comparison.quality).any() and np.isnan(comparison.positive).any():
        return None  # how soon it answers says nothing of how well
    with np.errstate(invalid="ignore"):
        return float(relative_improvement(comparison, np.nan if slower is None else slower))


def _guardrails(
    seen: Seen,
    comparison: Comparison,
    control: ArmFacts,
    treatment: ArmFacts,
    settings: ExperimentSettings,
) -> tuple[Evidence, ...]:
    is_timed = seen.answers["latency_ms"].is_not_null()
    timed, people = seen.answers.filter(is_timed), _people(seen)
    found = [
        guardrails.errors(
            seen.answers["is_treatment"].to_numpy(),
            seen.answers["failed"].to_numpy(),
            alpha=settings.guardrail_alpha,
            people=people,
        ),
        guardrails.latency(
            timed["is_treatment"].to_numpy(),
            timed["latency_ms"].to_numpy(),
            tolerance=settings.latency_tolerance,
            num_reference=settings.guardrail_min_reference,
            alpha=settings.guardrail_alpha,
            people=people and people.of(is_timed.to_numpy()),
        ),
        _negative(comparison, control, treatment, settings),
    ]
    return tuple(guardrail for guardrail in found if guardrail is not None)


def _people(seen: Seen) -> Units | None:
    """Who got each answer; in the shadow phase all get both."""
    if seen.stage == "shadow":
        return None
    since = pl.Series([period.since for period in seen.all_periods], dtype=MOMENT).to_numpy()
    given = seen.answers["created_at"].to_numpy()
    share = np.array([_share(seen, period) for period in seen.all_periods])
    place = np.searchsorted(since[1:], given, side="right")
    return Units(seen.answers["unit"].to_numpy(), share[place])


def _share(seen: Seen, period: SharePeriod) -> float:
    """Of the treatment, among its people and the champion's."""
    return 1 - period.share if seen.stage == "holdback" else period.challenger_share


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
    first = seen.users.sort("period", "arm").unique("unit", keep="first", maintain_order=True)
    log_e, texts = 0.0, []
    for number, period in enumerate(seen.periods):
        share = _share(seen, period)
        arm = first.filter(pl.col("period") == number)["arm"]
        if arm.is_empty() or not 0 < share < 1:
            continue
        treated, total = int(arm.sum()), len(arm)
        log_e += float(split_log_e(np.array(float(treated)), np.array(float(total)), share=share))
        texts.append(f"{treated} of {total} new people at a share of {share:.0%}")
    return Evidence(
        "split", log_e, -math.log(settings.split_alpha), "people split: " + ", ".join(texts)
    )


def _known(value: Array) -> float | None:
    return None if np.isnan(value) else float(value)
