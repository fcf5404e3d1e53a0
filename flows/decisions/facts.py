"""Reads from the registry what the triggers look at."""

from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from flows.decisions.change import Change, Drift, prompt_drift, quality_change
from flows.decisions.triggers import TriggerFacts, WindowFacts
from registry import deployment, runs
from registry.crypto import Keyring
from registry.models import UserInteraction
from registry.monitoring import (
    champion_since,
    count_failures,
    prompt_mixture,
    quality_by_day,
    window_quality,
)
from registry.settings import Settings
from registry.settings_decisions import TriggerSettings
from registry.statistics import count_quality_samples, statistics


def gather(
    session: Session,
    *,
    workload: str,
    settings: Settings,
    now: datetime,
    keyring: Keyring | None = None,
) -> TriggerFacts:
    """The facts of one workload at `now`. `keyring` opens prompts that lie sealed."""
    trained = runs.last(session, workload=workload, statuses=("succeeded", "rejected", "failed"))
    learned = runs.last(session, workload=workload)
    trained_at = trained.started_at if trained else None
    learned_at = learned.started_at if learned else None
    window = timedelta(hours=settings.triggers.window_hours)
    begun = _first(session, workload)
    reference = _reference(session, workload, settings.triggers, begun=begun, now=now)
    return TriggerFacts(
        hours_since_training=_hours(trained_at, now),
        hours_since_schedule=_hours(learned_at or begun, now),
        num_new_samples=count_quality_samples(
            session,
            workload=workload,
            min_quality=settings.curation.min_quality,
            min_feedback=settings.curation.min_feedback,
            since=learned_at,
        ),
        window=_window(session, workload, now - window, now),
        previous_window=_window(session, workload, now - 2 * window, now - window),
        is_training=runs.running(session, workload=workload) is not None,
        change=_change(session, workload, settings.triggers, reference, now),
        drift=_drift(session, workload, settings.triggers, reference, now, keyring),
    )


def _hours(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else (now - moment).total_seconds() / 3600


def _first(session: Session, workload: str) -> datetime | None:
    return session.exec(
        select(UserInteraction.created_at)
        .where(UserInteraction.workload == workload)
        .order_by(col(UserInteraction.created_at))
        .limit(1)
    ).first()


def _window(session: Session, workload: str, since: datetime, until: datetime) -> WindowFacts:
    found = statistics(session, workload=workload, since=since, until=until)
    quality = window_quality(session, workload=workload, since=since, until=until)
    return WindowFacts(
        num_interactions=found.total,
        avg_quality=quality.mean,
        quality_error=quality.standard_error,
        num_errors=count_failures(session, workload=workload, since=since, until=until),
    )


def _reference(
    session: Session,
    workload: str,
    settings: TriggerSettings,
    *,
    begun: datetime | None,
    now: datetime,
) -> tuple[datetime, datetime]:
    """The days that tell what is usual: the first of this champion, else those before it.

    A champion that is trained anew every week would never get past its first days.
    """
    version = deployment.desired(session, workload).champion
    since = champion_since(session, None if version is None else version.version)
    first = _next_day(since or begun or now)
    days = timedelta(days=settings.reference_days)
    if since is not None and now < first + days and begun is not None and begun < first - days:
        return first - days, first
    return first, first + days


def _next_day(moment: datetime) -> datetime:
    """The first midnight (UTC) from `moment` on."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == moment else midnight + timedelta(days=1)


def _change(
    session: Session,
    workload: str,
    settings: TriggerSettings,
    reference: tuple[datetime, datetime],
    now: datetime,
) -> Change | None:
    """On whole days alone, each with enough answers to speak of."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    usual, later = (
        [
            day.mean
            for day in quality_by_day(session, workload=workload, since=since, until=until)
            if day.num_scored >= settings.min_window_samples
        ]
        for since, until in ((reference[0], min(reference[1], today)), (reference[1], today))
    )
    if today < reference[1]:
        return None
    return quality_change(
        usual, later, tolerance=settings.change_tolerance, line=settings.change_days
    )


def _drift(
    session: Session,
    workload: str,
    settings: TriggerSettings,
    reference: tuple[datetime, datetime],
    now: datetime,
    keyring: Keyring | None,
) -> Drift | None:
    since = now - timedelta(days=settings.drift_days)
    if since < reference[1]:
        return None
    before, recently = (
        prompt_mixture(session, workload=workload, since=begin, until=end, keyring=keyring)
        for begin, end in (reference, (since, now))
    )
    return prompt_drift(before, recently)
