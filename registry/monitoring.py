"""What the triggers watch in a window of time: quality by user, and failures.

Shadow answers, which nobody saw, are left out everywhere. Quality is compared among the answers
of one scorer alone: a new one must not look like a change.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, or_
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from registry import scorers
from registry.models import ModelVersion, QualityScorer, UserInteraction

CALLER_LEFT = "the caller went away"
"""What is written down where a caller broke off: no failure of ours."""


@dataclass(frozen=True)
class WindowQuality:
    """Mean quality in a window, and its standard error over users; None where it is unknown."""

    num_scored: int
    mean: float | None
    standard_error: float | None


def window_quality(
    session: Session, *, workload: str, since: datetime, until: datetime
) -> WindowQuality:
    """Over [since, until). A user's answers are one draw: they resemble each other."""
    score = col(UserInteraction.quality_score)
    unit = func.coalesce(
        col(UserInteraction.user_id), col(UserInteraction.session_id), col(UserInteraction.id)
    )
    own = (
        select_columns(func.count().label("n"), func.sum(score).label("s"))
        .where(*_within(workload, since, until), *_scored(session, workload))
        .group_by(unit)
        .subquery()
    )
    n, s = own.c.n, own.c.s
    query = select_columns(
        func.count(), func.sum(n), func.sum(s), func.sum(s * s), func.sum(s * n), func.sum(n * n)
    )
    users, num, total, *moments = session.connection().execute(query).one()
    if not users:
        return WindowQuality(0, None, None)
    ss, sn, nn = (float(moment) for moment in moments)
    num, mean = int(num), float(total) / int(num)
    if users < 2:
        return WindowQuality(num, mean, None)
    spread = max(0.0, ss - 2 * mean * sn + mean * mean * nn) * users / (users - 1)
    return WindowQuality(num, mean, spread**0.5 / num)


def count_failures(session: Session, *, workload: str, since: datetime, until: datetime) -> int:
    """Answers in [since, until) that failed, but for callers who left."""
    error = col(UserInteraction.error)
    return session.exec(
        select(func.count())
        .select_from(UserInteraction)
        .where(*_within(workload, since, until), error.is_not(None), error != CALLER_LEFT)
    ).one()


def champion_since(session: Session, version: str | None) -> datetime | None:
    """When the version began to serve; None for the base model."""
    found = None if version is None else session.get(ModelVersion, version)
    return None if found is None else found.deployed_at


def _within(workload: str, since: datetime, until: datetime) -> list[ColumnElement[bool]]:
    at = col(UserInteraction.created_at)
    return [
        col(UserInteraction.workload) == workload,
        and_(at >= since, at < until),
        col(UserInteraction.role) != "shadow",
    ]


def _scored(session: Session, workload: str) -> list[ColumnElement[bool]]:
    """Scored by the scorer that is active; without a fitted one, by none that was fitted."""
    active = scorers.active(session).get(workload)
    scorer = col(UserInteraction.scorer_version)
    by_it = (
        or_(scorer.is_(None), scorer.not_in(select_columns(col(QualityScorer.version))))
        if active is None
        else scorer == active.version
    )
    return [col(UserInteraction.quality_score).is_not(None), by_it]
