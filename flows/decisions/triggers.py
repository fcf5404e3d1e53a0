"""Whether to retrain: the triggers in their order, after the cooldown."""

import math
from dataclasses import dataclass
from enum import StrEnum

from flows.decisions.change import Change, Drift
from registry.settings_decisions import TriggerSettings


class Trigger(StrEnum):
    """Why a training run starts."""

    FORCED = "forced"
    SAMPLE_COUNT = "sample_count"
    SCHEDULED = "scheduled"
    QUALITY_DROP = "quality_drop"
    ERROR_RATE = "error_rate"
    QUALITY_CHANGE = "quality_change"
    INPUT_DRIFT = "input_drift"


@dataclass(frozen=True, kw_only=True)
class WindowFacts:
    """Totals of one time window; `avg_quality` is None where nothing was scored."""

    num_interactions: int
    avg_quality: float | None
    num_errors: int
    """Without those whose callers left."""
    quality_error: float | None = None
    """Standard error of `avg_quality` over users."""


@dataclass(frozen=True, kw_only=True)
class TriggerFacts:
    """What the triggers look at. Hours are None where there was no such event yet."""

    hours_since_training: float | None
    hours_since_schedule: float | None
    """Since the last training, else since the first interaction."""
    num_new_samples: int
    """Samples that curation would accept, rated since the last training."""
    window: WindowFacts
    """The latest window."""
    previous_window: WindowFacts
    """The window of equal length before it."""
    is_training: bool = False
    change: Change | None = None
    """None while the days that tell what is usual are not over."""
    drift: Drift | None = None


@dataclass(frozen=True)
class TriggerDecision:
    """The first trigger that fired, or None; `checks` tells every number that was looked at."""

    trigger: Trigger | None
    reason: str
    checks: tuple[str, ...]


@dataclass(frozen=True)
class _Check:
    trigger: Trigger
    fired: bool
    text: str


def decide(
    facts: TriggerFacts, settings: TriggerSettings, *, force: bool = False
) -> TriggerDecision:
    """The decision on these facts. `force` overrides everything but a training under way."""
    checks = (
        _sample_count(facts, settings),
        _schedule(facts, settings),
        _quality_drop(facts, settings),
        _error_rate(facts, settings),
        _quality_change(facts, settings),
        _input_drift(facts, settings),
    )
    cooldown = _cooldown(facts, settings)
    texts = (cooldown or "no cooldown", *(check.text for check in checks))
    if facts.is_training:
        return TriggerDecision(None, "a training is under way", texts)
    if force:
        return TriggerDecision(Trigger.FORCED, "forced", texts)
    if cooldown is not None:
        return TriggerDecision(None, cooldown, texts)
    for check in checks:
        if check.fired:
            return TriggerDecision(check.trigger, check.text, texts)
    return TriggerDecision(None, "no trigger fired", texts)


def _cooldown(facts: TriggerFacts, settings: TriggerSettings) -> str | None:
    hours = facts.hours_since_training
    if hours is None or hours >= settings.cooldown_hours:
        return None
    return f"cooldown: {hours:.1f} h since the last training, {settings.cooldown_hours:g} h needed"


def _sample_count(facts: TriggerFacts, settings: TriggerSettings) -> _Check:
    found, needed = facts.num_new_samples, settings.min_new_samples
    return _Check(
        Trigger.SAMPLE_COUNT,
        found >= needed,
        f"{found} new quality samples (trigger: {needed}; {max(0, needed - found)} to go)",
    )


def _schedule(facts: TriggerFacts, settings: TriggerSettings) -> _Check:
    hours, needed = facts.hours_since_schedule, settings.schedule_interval_hours
    if hours is None:
        return _Check(Trigger.SCHEDULED, False, "nothing was logged yet")
    return _Check(
        Trigger.SCHEDULED,
        hours >= needed,
        f"{hours:.1f} h since the last training or the first interaction (trigger: {needed:g} h; "
        f"{max(0.0, needed - hours):.1f} h to go)",
    )


def _quality_drop(facts: TriggerFacts, settings: TriggerSettings) -> _Check:
    now, before = facts.window, facts.previous_window
    enough = min(now.num_interactions, before.num_interactions) >= settings.min_window_samples
    if not enough or now.avg_quality is None or not before.avg_quality:
        return _Check(
            Trigger.QUALITY_DROP,
            False,
            f"quality not compared: {before.num_interactions} and {now.num_interactions} "
            f"interactions in two {settings.window_hours:g} h windows "
            f"({settings.min_window_samples} needed in each)",
        )
    drop = (before.avg_quality - now.avg_quality) / before.avg_quality
    chance = settings.quality_drop_errors * math.hypot(
        now.quality_error or 0.0, before.quality_error or 0.0
    )
    line = max(settings.quality_drop, chance / before.avg_quality)
    return _Check(
        Trigger.QUALITY_DROP,
        drop > line,
        f"quality {before.avg_quality:.3f} → {now.avg_quality:.3f}, a drop of {drop:.1%} "
        f"(trigger: above {settings.quality_drop:.0%}, and above what chance does, "
        f"{chance / before.avg_quality:.1%}: below {before.avg_quality * (1 - line):.3f})",
    )


def _error_rate(facts: TriggerFacts, settings: TriggerSettings) -> _Check:
    total = facts.window.num_interactions
    if total < settings.min_window_samples:
        return _Check(
            Trigger.ERROR_RATE,
            False,
            f"error rate not judged: {total} interactions in {settings.window_hours:g} h "
            f"({settings.min_window_samples} needed)",
        )
    rate = facts.window.num_errors / total
    return _Check(
        Trigger.ERROR_RATE,
        rate > settings.error_rate,
        f"error rate {rate:.1%} (trigger: above {settings.error_rate:.0%})",
    )


def _quality_change(facts: TriggerFacts, settings: TriggerSettings) -> _Check:
    change = facts.change
    if change is None:
        text = (
            f"quality change: the {settings.reference_days} days that tell what is usual "
            "are not over, or too few had answers"
        )
        return _Check(Trigger.QUALITY_CHANGE, False, text)
    last = "none yet" if change.last is None else f"{change.last:.3f} on the last"
    return _Check(
        Trigger.QUALITY_CHANGE,
        change.fired,
        f"quality change: usually {change.usual:.3f}, {last} of {change.num_days} days watched; "
        f"evidence {change.evidence:.3g} (trigger: above {change.line:g})",
    )


def _input_drift(facts: TriggerFacts, settings: TriggerSettings) -> _Check:
    drift, needed = facts.drift, settings.min_drift_samples
    if drift is None or min(drift.num_reference, drift.num_now) < needed:
        have = "no days to compare" if drift is None else f"{drift.num_reference}, {drift.num_now}"
        text = f"input drift not judged: {have} ({needed} prompts needed on both sides)"
        return _Check(Trigger.INPUT_DRIFT, False, text)
    return _Check(
        Trigger.INPUT_DRIFT,
        drift.psi > settings.drift_psi,
        f"input drift: stability index {drift.psi:.3f} over {drift.num_now} prompts "
        f"(trigger: above {settings.drift_psi:g}); most moved: {drift.most}",
    )
