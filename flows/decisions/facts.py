"""Reads from the registry what the triggers look at."""

from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from flows.decisions.triggers import TriggerFacts, WindowFacts
from registry import runs
from registry.models import UserInteraction
from registry.settings import Settings
from registry.statistics import count_quality_samples, statistics


def gather(session: Session, *, workload: str, settings: Settings, now: datetime) -> TriggerFacts:
    """The facts of one workload at `now`."""
    trained = runs.last(session, workload=workload, statuses=("succeeded", "rejected", "failed"))
    learned = runs.last(session, workload=workload)
    trained_at = trained.started_at if trained else None
    learned_at = learned.started_at if learned else None
    window = timedelta(hours=settings.triggers.window_hours)
    return TriggerFacts(
        hours_since_training=_hours(trained_at, now),
        hours_since_schedule=_hours(learned_at or _first(session, workload), now),
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
    return WindowFacts(
        num_interactions=found.total, avg_quality=found.avg_quality, num_errors=found.errors
    )
