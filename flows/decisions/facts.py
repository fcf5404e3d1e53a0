"""Reads from the registry what the triggers look at."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from flows.decisions.change import Change, Drift, prompt_drift, quality_change
from flows.decisions.triggers import TriggerFacts, WindowFacts
from registry import daily, deployment, runs
from registry.crypto import Keyring
from registry.daily import DAY, Day, midnight
from registry.db import Database
from registry.models import UserInteraction
from registry.monitoring import champion_since, windows
from registry.settings import Settings
from registry.settings_decisions import TriggerSettings
from registry.statistics import count_quality_samples


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
    days = daily.days(
        session,
        workload=workload,
        since=reference[0],
        until=max(reference[0], midnight(now)),
        keyring=keyring,
    )
    earlier, later = _windows(session, workload, [now - 2 * window, now - window, now])
    return TriggerFacts(
        hours_since_training=_hours(trained_at, now),
        hours_since_schedule=_hours(learned_at or begun, now),
        num_new_samples=count_quality_samples(
            session,
            workload=workload,
            min_quality=settings.curation.min_quality,
            min_quality_if_liked=settings.curation.min_quality_if_liked,
            min_feedback=settings.curation.min_feedback,
            since=learned_at,
        ),
        window=later,
        previous_window=earlier,
        is_training=runs.running(session, workload=workload) is not None,
        change=_change(session, workload, settings.triggers, days, reference, now),
        drift=_drift(days, settings.triggers, reference, now),
    )


def keep_days(
    database: Database, *, workload: str, settings: Settings, now: datetime, keyring: Keyring
) -> int:
    """Keep what the days that `gather` will look at were like; how many were not kept yet."""
    with database.read() as session:
        begun = _first(session, workload)
        since, _ = _reference(session, workload, settings.triggers, begun=begun, now=now)
    until = midnight(now)
    return daily.keep(database, workload=workload, since=since, until=until, keyring=keyring)


def _hours(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else (now - moment).total_seconds() / 3600


def _first(session: Session, workload: str) -> datetime | None:
    return session.exec(
        select(UserInteraction.created_at)
        .where(UserInteraction.workload == workload)
        .order_by(col(UserInteraction.created_at))
        .limit(1)
    ).first()


def _windows(session: Session, workload: str, bounds: Sequence[datetime]) -> list[WindowFacts]:
    return [
        WindowFacts(
            num_interactions=found.num_interactions,
            avg_quality=found.mean_quality,
            quality_error=found.standard_error,
            num_errors=found.num_failed,
        )
        for found in windows(session, workload=workload, bounds=bounds)
    ]


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
    before = midnight(moment)
    return before if before == moment else before + DAY


def _within(days: Sequence[Day], since: datetime, until: datetime) -> list[Day]:
    return [day for day in days if since.date() <= day.day < until.date()]


def _change(
    session: Session,
    workload: str,
    settings: TriggerSettings,
    days: Sequence[Day],
    reference: tuple[datetime, datetime],
    now: datetime,
) -> Change | None:
    """On whole days alone, each with enough answers to speak of."""
    if midnight(now) < reference[1]:
        return None
    usual, later = (
        daily.mean_quality(session, part, workload=workload, least=settings.min_window_samples)
        for part in (_within(days, *reference), _within(days, reference[1], midnight(now)))
    )
    return quality_change(
        usual, later, tolerance=settings.change_tolerance, line=settings.change_days
    )


def _drift(
    days: Sequence[Day],
    settings: TriggerSettings,
    reference: tuple[datetime, datetime],
    now: datetime,
) -> Drift | None:
    """The last whole days against the reference."""
    since = midnight(now) - settings.drift_days * DAY
    if since < reference[1]:
        return None
    before, recently = _within(days, *reference), _within(days, since, midnight(now))
    return prompt_drift(daily.mixture(before), daily.mixture(recently))
