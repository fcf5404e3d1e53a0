"""What the triggers watch over time: quality by day and user, failures, the mixture of prompts.

Shadow answers, which nobody saw, are left out everywhere. Quality is compared among the answers
of one scorer alone: a new one must not look like a change.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, case, func, or_
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from registry import scorers, texts
from registry.crypto import Keyring
from registry.models import ModelVersion, QualityScorer, UserInteraction

CALLER_LEFT = "the caller went away"
"""What is written down where a caller broke off: no failure of ours."""
LENGTHS = (20, 40, 80, 160, 320, 640, 1280, 5120)
"""Bounds, in characters, of the classes of prompt lengths."""
LONGEST = 99
"""The class beyond all bounds."""
BATCH = 1000
"""Sealed prompts that are held in memory at once."""


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


def quality_by_day(
    session: Session, *, workload: str, since: datetime, until: datetime
) -> list[DayQuality]:
    """Every day (UTC) of [since, until) with scored answers, oldest first."""
    score, day = col(UserInteraction.quality_score), _day(session).label("day")
    query = (
        select_columns(day, func.count(), func.avg(score))
        .where(*_within(workload, since, until), *_scored(session, workload))
        .group_by(day)
        .order_by(day)
    )
    rows = session.connection().execute(query).tuples()
    return [DayQuality(str(at), num, float(mean)) for at, num, mean in rows]


def prompt_mixture(
    session: Session,
    *,
    workload: str,
    since: datetime,
    until: datetime,
    keyring: Keyring | None = None,
) -> dict[str, int]:
    """How many prompts of each class: target tool, language and length.

    Of sealed prompts the database knows no length: they are opened with `keyring`, one by one.
    Raises `KeyringError` where that fails.
    """
    prompt = col(UserInteraction.input_text)
    sealed, length = prompt.startswith(texts.MARK, autoescape=True), func.length(prompt)
    size = case(*((length < bound, place) for place, bound in enumerate(LENGTHS)), else_=LONGEST)
    tool, language = col(UserInteraction.target_tool), col(UserInteraction.language)
    query = (
        select_columns(tool, language, size.label("size"), func.count())
        .where(*_within(workload, since, until), ~sealed)
        .group_by(tool, language, size)
    )
    found: Counter[str] = Counter()
    for a, b, place, num in session.connection().execute(query).tuples():
        found[_class(a, b, place)] += num
    rows = select_columns(col(UserInteraction.id), tool, language, prompt).where(
        *_within(workload, since, until), sealed
    )
    for row_id, a, b, text in session.connection().execute(rows).yield_per(BATCH).tuples():
        opened = texts.unseal(text, place=f"user_interactions.input_text:{row_id}", keyring=keyring)
        found[_class(a, b, _size(len(opened)))] += 1
    return dict(found)


def _class(tool: str | None, language: str | None, size: int) -> str:
    return f"{tool or '-'}|{language or '-'}|{size}"


def _size(length: int) -> int:
    return next((place for place, bound in enumerate(LENGTHS) if length < bound), LONGEST)


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


def _day(session: Session) -> ColumnElement[str]:
    at = col(UserInteraction.created_at)
    if session.get_bind().dialect.name == "postgresql":
        return func.date(func.timezone("UTC", at))
    return func.date(at)
