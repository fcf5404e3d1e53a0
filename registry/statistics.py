"""Totals of what was asked, answered and said of it.

Whole hours come from `usage_hours`, which the database keeps as rows come and go; only what
lies in a part of an hour is counted row by row.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, or_, text, union_all
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from registry.models import DEFAULT_WORKLOAD, UsageHour, User, UserInteraction
from registry.monitoring import CALLER_LEFT

NANO = 1e9
THUMBS = (-1, 0, 1)
FOLD_AFTER = timedelta(hours=2)
COUNTS = ("total", "rated", "positive", "negative", "errors", "scored", "quality_nano")

_FOLD = text(
    f"""
    WITH apart AS (
        SELECT workload, hour, role, writer FROM usage_hours
        WHERE writer <> 0 AND hour < :before FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM usage_hours AS h USING apart AS a
        WHERE (h.workload, h.hour, h.role, h.writer) = (a.workload, a.hour, a.role, a.writer)
        RETURNING h.*
    )
    INSERT INTO usage_hours (workload, hour, role, writer, {", ".join(COUNTS)})
    SELECT workload, hour, role, 0, {", ".join(f"sum({name})" for name in COUNTS)}
    FROM taken GROUP BY workload, hour, role ORDER BY workload, hour, role
    ON CONFLICT (workload, hour, role, writer) DO UPDATE
    SET {", ".join(f"{name} = usage_hours.{name} + excluded.{name}" for name in COUNTS)}
    """
)


@dataclass(frozen=True)
class UsageStatistics:
    """Totals of one workload. Rates and means are None where nothing was counted."""

    total: int
    rated: int
    positive: int
    negative: int
    errors: int
    """Failures; a caller who left is none."""
    avg_quality: float | None
    """Mean score, to nine digits."""

    @property
    def feedback_rate(self) -> float | None:
        """Share of interactions with feedback."""
        return self.rated / self.total if self.total else None

    @property
    def error_rate(self) -> float | None:
        """Share of interactions that failed."""
        return self.errors / self.total if self.total else None


def statistics(
    session: Session,
    *,
    workload: str = DEFAULT_WORKLOAD,
    since: datetime | None = None,
    until: datetime | None = None,
) -> UsageStatistics:
    """Totals over [since, until); shadow answers, which nobody saw, are left out."""
    parts = [
        _of_hours(workload, begin, end) if whole else _of_rows(workload, begin, end)
        for begin, end, whole in _split(since, until)
    ]
    together = union_all(*parts).subquery()
    sums = (func.coalesce(func.sum(together.c[name]), 0) for name in COUNTS)
    found = session.connection().execute(select_columns(*sums)).one()
    total, rated, positive, negative, errors, scored, quality = map(int, found)
    return UsageStatistics(
        total=total,
        rated=rated,
        positive=positive,
        negative=negative,
        errors=errors - (_num_left(session, workload, since, until) if errors else 0),
        avg_quality=quality / NANO / scored if scored else None,
    )


def count_quality_samples(
    session: Session,
    *,
    workload: str,
    min_quality: float,
    min_quality_if_liked: float,
    min_feedback: int,
    since: datetime | None,
) -> int:
    """Interactions that curation would accept, with feedback given after `since`.

    All of it is in the index `ix_interactions_rated`: no row is looked at.
    """
    table = UserInteraction
    kind, score = col(table.rated_kind), col(table.quality_score)

    def is_good(least: float) -> ColumnElement[bool]:
        # Conversations have no score: the format does not apply to them.
        return (score >= least) | (score.is_(None) & (kind == "chat"))

    thumb, is_corrected = col(table.user_feedback), kind == "corrected"
    enough = [value for value in THUMBS if min_feedback <= value < 1]
    kinds = (
        is_corrected & thumb.is_(None),
        is_corrected & thumb.in_(THUMBS),
        kind.in_(["prompt", "chat"]) & thumb.in_(enough) & is_good(min_quality),
        kind.in_(["prompt", "chat"]) & (thumb == 1) & is_good(min_quality_if_liked),
    )
    query = select(func.count()).select_from(table).where(col(table.workload) == workload)
    if since is not None:
        query = query.where(col(table.feedback_at) > since)
    # Each kind for itself is one piece of the index.
    each = [query.where(which).scalar_subquery() for which in kinds]
    accepted: int = sum(session.connection().execute(select_columns(*each)).one())
    refusing = select(User.id).where(User.consent != "granted")
    if session.exec(refusing.limit(1)).first() is None:
        return accepted  # as it mostly is: their answers would have to be looked for
    theirs = query.where(col(table.user_id).in_(refusing), or_(*kinds))
    return accepted - session.exec(theirs).one()


def fold(session: Session, *, now: datetime) -> None:
    """Put together what several connections have counted of hours that are over.

    Totals stay the same. Rows that somebody changes at the moment are left for the next time.
    On SQLite there is one writer, and nothing to do.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(_FOLD, {"before": now - FOLD_AFTER})


def _split(
    since: datetime | None, until: datetime | None
) -> list[tuple[datetime | None, datetime | None, bool]]:
    """[since, until) as whole hours, and the parts of hours at its ends."""
    first = None if since is None else -(-since.timestamp() // 3600)
    last = None if until is None else until.timestamp() // 3600
    begin, end = _moment(first), _moment(last)
    if begin is not None and end is not None and begin >= end:
        return [(since, until, False)]
    parts: list[tuple[datetime | None, datetime | None, bool]] = [(begin, end, True)]
    if begin is not None and begin != since:
        parts.append((since, begin, False))
    if end is not None and end != until:
        parts.append((end, until, False))
    return parts


def _moment(hours: float | None) -> datetime | None:
    return None if hours is None else datetime.fromtimestamp(hours * 3600, UTC)


def _of_hours(workload: str, since: datetime | None, until: datetime | None) -> Select[Any]:
    sums = (func.sum(col(getattr(UsageHour, name))).label(name) for name in COUNTS)
    return (
        select_columns(*sums)
        .where(col(UsageHour.workload) == workload, col(UsageHour.role) != "shadow")
        .where(*_between(col(UsageHour.hour), since, until))
    )


def _of_rows(workload: str, since: datetime | None, until: datetime | None) -> Select[Any]:
    table = UserInteraction
    thumb, score = col(table.user_feedback), col(table.quality_score)
    return (
        select_columns(
            func.count().label("total"),
            func.count(thumb).label("rated"),
            func.sum(_one_if(thumb == 1)).label("positive"),
            func.sum(_one_if(thumb == -1)).label("negative"),
            func.count(col(table.error)).label("errors"),
            func.count(score).label("scored"),
            func.sum(func.round(score * literal(NANO))).label("quality_nano"),
        )
        .where(col(table.workload) == workload, col(table.role) != "shadow")
        .where(*_between(col(table.created_at), since, until))
    )


def _num_left(
    session: Session, workload: str, since: datetime | None, until: datetime | None
) -> int:
    """Callers who broke off, which the kept totals count as errors."""
    error = col(UserInteraction.error)
    query = (
        select(func.count())
        .select_from(UserInteraction)
        .where(error.is_not(None), error == CALLER_LEFT)  # the first finds the partial index
        .where(col(UserInteraction.workload) == workload, col(UserInteraction.role) != "shadow")
        .where(*_between(col(UserInteraction.created_at), since, until))
    )
    return session.exec(query).one()


def _between(
    column: Any, since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    found = [] if since is None else [column >= since]
    return found if until is None else [*found, column < until]


def _one_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)
