"""What the triggers watch in windows of time: quality by user, and failures.

Shadow answers, which nobody saw, are left out everywhere. Quality is compared among the answers
of one scorer alone: a new one must not look like a change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, cast, func, literal, or_, union_all
from sqlalchemy import select as select_columns
from sqlmodel import Session, col

from registry import scorers
from registry.models import ModelVersion, QualityScorer, UserInteraction

CALLER_LEFT = "the caller went away"
"""What is written down where a caller broke off: no failure of ours."""


Condition = ColumnElement[bool]


@dataclass(frozen=True)
class Window:
    """What one window of time brought; None where it is unknown."""

    num_interactions: int = 0
    num_scored: int = 0
    mean_quality: float | None = None
    standard_error: float | None = None
    """Of the mean quality, over users: a user's answers resemble each other, and are one draw."""
    num_failed: int = 0
    """But for callers who left."""


def windows(session: Session, *, workload: str, bounds: Sequence[datetime]) -> list[Window]:
    """What lies between each of the `bounds`, which ascend, and the next."""
    is_by_scorer = _is_by_scorer(session, workload)
    parts = [
        _window(place, _within(workload, since, until), is_by_scorer)
        for place, (since, until) in enumerate(pairwise(bounds))
    ]
    found = session.connection().execute(union_all(*parts)).all()
    return [_told(*row) for _, *row in sorted(found, key=lambda row: row[0])]


def _window(place: int, within: list[Condition], is_by_scorer: Condition) -> Select[Any]:
    """Its place, answers, failures, users, and sums over the users (`_mean`)."""
    score, error = col(UserInteraction.quality_score), col(UserInteraction.error)
    # Of nobody known, each alone: by its moment, so that an index tells it all.
    unit = func.coalesce(
        col(UserInteraction.user_id),
        col(UserInteraction.session_id),
        cast(col(UserInteraction.created_at), String),
    )
    own = (
        select_columns(func.count().label("n"), func.sum(score).label("s"))
        .where(*within, score.is_not(None), is_by_scorer)
        .group_by(unit)
        .subquery()
    )
    n, s = own.c.n, own.c.s
    answers = select_columns(func.count()).select_from(UserInteraction).where(*within)
    return select_columns(
        literal(place),
        answers.scalar_subquery(),
        answers.where(error.is_not(None), error != CALLER_LEFT).scalar_subquery(),
        func.count(),
        *(func.coalesce(func.sum(term), 0) for term in (n, s, s * s, s * n, n * n)),
    ).select_from(own)


def _told(total: int, num_failed: int, users: int, *sums: float) -> Window:
    num_scored, *_ = sums
    mean, error = _mean(users, *map(float, sums))
    return Window(
        num_interactions=total,
        num_scored=int(num_scored),
        mean_quality=mean,
        standard_error=error,
        num_failed=num_failed,
    )


def _mean(
    users: float, num: float, total: float, ss: float, sn: float, nn: float
) -> tuple[float | None, float | None]:
    """The mean over all answers and its standard error, from sums over the users.

    Of their number n of answers and sum s of scores: of n, s, s², s n and n².
    """
    if not users:
        return None, None
    mean = total / num
    if users < 2:
        return mean, None
    spread = max(0.0, ss - 2 * mean * sn + mean * mean * nn) * users / (users - 1)
    return mean, float(spread**0.5 / num)


def champion_since(session: Session, version: str | None) -> datetime | None:
    """When the version began to serve; None for the base model."""
    found = None if version is None else session.get(ModelVersion, version)
    return None if found is None else found.deployed_at


def _within(workload: str, since: datetime, until: datetime) -> list[Condition]:
    at = col(UserInteraction.created_at)
    return [
        col(UserInteraction.workload) == workload,
        and_(at >= since, at < until),
        col(UserInteraction.role) != "shadow",
    ]


def _is_by_scorer(session: Session, workload: str) -> Condition:
    """Scored by the scorer that is active; without a fitted one, by none that was fitted."""
    active = scorers.active(session).get(workload)
    scorer = col(UserInteraction.scorer_version)
    if active is not None:
        return scorer == active.version
    return or_(scorer.is_(None), scorer.not_in(select_columns(col(QualityScorer.version))))
