"""What the triggers watch over time: quality by day and user, failures, the mixture of prompts.

Shadow answers, which nobody saw, are left out everywhere.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, case, func
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from registry.models import ModelVersion, UserInteraction

CALLER_LEFT = "the caller went away"
"""What is written down where a caller broke off: no failure of ours."""
LENGTHS = (20, 40, 80, 160, 320, 640, 1280, 5120)
"""Bounds, in characters, of the classes of prompt lengths."""


@dataclass(frozen=True)
class WindowQuality:
    """Mean quality in a window, and its standard error over users; None where it is unknown."""

    num_scored: int
    mean: float | None
    standard_error: float | None


@dataclass(frozen=True)
class DayQuality:
    """One day (UTC) of scored answers."""

    day: str
    num_scored: int
    mean: float


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
        .where(*_within(workload, since, until), score.is_not(None))
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


def quality_by_day(
    session: Session, *, workload: str, since: datetime, until: datetime
) -> list[DayQuality]:
    """Every day (UTC) of [since, until) with scored answers, oldest first."""
    score, day = col(UserInteraction.quality_score), _day(session).label("day")
    query = (
        select_columns(day, func.count(), func.avg(score))
        .where(*_within(workload, since, until), score.is_not(None))
        .group_by(day)
        .order_by(day)
    )
    rows = session.connection().execute(query).tuples()
    return [DayQuality(str(at), num, float(mean)) for at, num, mean in rows]


def prompt_mixture(
    session: Session, *, workload: str, since: datetime, until: datetime
) -> dict[str, int]:
    """How many prompts of each class: target tool, language and length."""
    length = func.length(col(UserInteraction.input_text))
    size = case(*((length < bound, place) for place, bound in enumerate(LENGTHS)), else_=99)
    tool, language = col(UserInteraction.target_tool), col(UserInteraction.language)
    query = (
        select_columns(tool, language, size.label("size"), func.count())
        .where(*_within(workload, since, until))
        .group_by(tool, language, size)
    )
    rows = session.connection().execute(query).tuples()
    return {f"{a or '-'}|{b or '-'}|{place}": num for a, b, place, num in rows}


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


def _day(session: Session) -> ColumnElement[str]:
    at = col(UserInteraction.created_at)
    if session.get_bind().dialect.name == "postgresql":
        return func.date(func.timezone("UTC", at))
    return func.date(at)
