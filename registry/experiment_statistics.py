"""What an experiment's answers come to: sums by user, share periods, answers in their order.

Everything is read as of a moment: answers given and ratings received by then. Shadow answers
count in the shadow phase alone. Who left before the answer was done says nothing of a
version: such a row belongs to no experiment (see `serving.answering`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, Select, and_, case, func, literal
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from registry.models import Experiment, ProductionPeriod, UserInteraction

Stage = Literal["shadow", "trial", "holdback"]


@dataclass(frozen=True)
class SharePeriod:
    """A time with one share for the treatment; `until` is null for the one that runs."""

    since: datetime
    until: datetime | None
    share: float
    """Of all challengers together."""
    num_challengers: int = 1

    @property
    def challenger_share(self) -> float:
        """Of one challenger, among its people and the champion's."""
        own = self.share / self.num_challengers
        return own / (own + 1 - self.share)


@dataclass(frozen=True)
class UserSums:
    """What one user's answers in one period and arm come to.

    `unit` is the user, else the session, else the answer alone: whom the assignment sticks to.
    `arm`: 0 control, 1 treatment. Failed answers are in no sum.
    """

    unit: str
    period: int
    arm: int
    scored: int
    quality: float
    rated: int
    positive: int
    negative: int
    rated_scored: int
    rated_quality: float


@dataclass(frozen=True)
class PriorSums:
    """What one user's answers came to before the experiment; `unit` as in `UserSums`."""

    unit: str
    scored: int
    quality: float
    rated: int
    positive: int


@dataclass(frozen=True)
class AnswerFacts:
    """One answer: whether the treatment gave it, whether it failed, and how long it took."""

    is_treatment: bool
    failed: bool
    latency_ms: float | None
    created_at: datetime


def share_periods(
    session: Session, experiment: Experiment, *, until: datetime
) -> list[SharePeriod]:
    """The experiment's periods of one share, in the order of their changes.

    A clock that stepped back makes a period of no length, never one that ends before it began.
    """
    rows = session.exec(
        select(ProductionPeriod)
        .where(
            ProductionPeriod.workload == experiment.workload,
            ProductionPeriod.experiment_id == experiment.id,
            ProductionPeriod.from_at <= until,
            # What its end opened is behind it.
            col(ProductionPeriod.from_at).is_distinct_from(experiment.ended_at),
        )
        .order_by(col(ProductionPeriod.generation))
    ).all()
    found: list[SharePeriod] = []
    for row in rows:
        num = 1 + len(row.rivals or ())
        if found and (found[-1].share, found[-1].num_challengers) == (row.share, num):
            continue
        since = max(row.from_at, found[-1].since) if found else experiment.started_at
        if found:
            found[-1] = replace(found[-1], until=since)
        found.append(SharePeriod(since, None, row.share, num))
    return found or [SharePeriod(experiment.started_at, None, experiment.share)]


def settled(periods: Sequence[SharePeriod], since: datetime) -> list[SharePeriod]:
    """What is left of the periods from `since` on."""
    left = [period for period in periods if period.until is None or period.until > since]
    return [replace(period, since=max(period.since, since)) for period in left]


def user_sums(
    session: Session,
    *,
    experiment_id: str,
    stage: Stage,
    periods: Sequence[SharePeriod],
    until: datetime,
    max_per_user_day: int,
    version: str | None = None,
) -> list[UserSums]:
    """The sums of every user, period and arm, of answers since the first period and up to `until`.

    `version`: the challenger that is compared, where there are several.
    Of a user's answers in one day the first `max_per_user_day` count, and as many of those
    that are rated.
    """
    rows = _numbered(experiment_id, stage, periods, until, version).subquery()
    answered = rows.c.failed == 0
    scored = and_(answered, rows.c.quality.is_not(None), rows.c.nth <= max_per_user_day)
    rated = and_(answered, rows.c.is_rated == 1, rows.c.nth_rated <= max_per_user_day)
    both = and_(rated, rows.c.quality.is_not(None))
    query = (
        select_columns(
            rows.c.unit,
            rows.c.period,
            rows.c.arm,
            _count(scored),
            _sum(scored, rows.c.quality),
            _count(rated),
            _count(and_(rated, rows.c.thumb == 1)),
            _count(and_(rated, rows.c.thumb == -1)),
            _count(both),
            _sum(both, rows.c.quality),
        )
        .group_by(rows.c.unit, rows.c.period, rows.c.arm)
        .order_by(rows.c.unit, rows.c.period, rows.c.arm)
    )
    return [UserSums(*row) for row in session.connection().execute(query).tuples()]


def prior_sums(session: Session, *, experiment: Experiment, days: int) -> list[PriorSums]:
    """Of everybody in the `days` before the experiment, as it was known when that began.

    What is said later of an answer of before may hang on the experiment, and counts for nothing.
    """
    begun = experiment.started_at
    quality, thumb = col(UserInteraction.quality_score), col(UserInteraction.user_feedback)
    rated = and_(thumb.is_not(None), col(UserInteraction.feedback_at) < begun)
    unit = _unit().label("unit")
    query = (
        select_columns(
            unit,
            _count(quality.is_not(None)),
            func.sum(quality),
            _count(rated),
            _count(and_(rated, thumb == 1)),
        )
        .where(
            col(UserInteraction.workload) == experiment.workload,
            col(UserInteraction.created_at) >= begun - timedelta(days=days),
            col(UserInteraction.created_at) < begun,
            col(UserInteraction.role) != "shadow",
            col(UserInteraction.error).is_(None),
        )
        .group_by(unit)
        .order_by(unit)
    )
    return [
        PriorSums(who, scored, float(total or 0), rated, liked)
        for who, scored, total, rated, liked in session.connection().execute(query).tuples()
    ]


def _unit() -> ColumnElement[str]:
    """Whom an assignment sticks to."""
    return func.coalesce(
        col(UserInteraction.user_id), col(UserInteraction.session_id), col(UserInteraction.id)
    )


def _numbered(
    experiment_id: str,
    stage: Stage,
    periods: Sequence[SharePeriod],
    until: datetime,
    version: str | None,
) -> Select[tuple[object, ...]]:
    """Every answer with its place among its user's of that day, and among those rated."""
    quality, thumb = col(UserInteraction.quality_score), col(UserInteraction.user_feedback)
    unit = _unit()
    failed = case((col(UserInteraction.error).is_not(None), 1), else_=0)
    is_rated = case(
        (and_(thumb.is_not(None), col(UserInteraction.feedback_at) <= until), 1), else_=0
    )
    day = func.date(col(UserInteraction.created_at))
    order = (col(UserInteraction.created_at), col(UserInteraction.id))
    return select_columns(
        unit.label("unit"),
        _period(periods).label("period"),
        _is_treatment(stage).label("arm"),
        failed.label("failed"),
        quality.label("quality"),
        thumb.label("thumb"),
        is_rated.label("is_rated"),
        func.row_number().over(partition_by=(unit, day, failed), order_by=order).label("nth"),
        func.row_number()
        .over(partition_by=(unit, day, failed, is_rated), order_by=order)
        .label("nth_rated"),
    ).where(
        *_counted(experiment_id, stage, until, version),
        col(UserInteraction.created_at) >= periods[0].since,
    )


def answers(
    session: Session,
    *,
    experiment_id: str,
    stage: Stage,
    since: datetime,
    until: datetime,
    version: str | None = None,
) -> list[AnswerFacts]:
    """Every answer of the experiment in [since, until], in the order it was given.

    `version`: see `user_sums`.
    """
    query = (
        select_columns(
            _is_treatment(stage),
            col(UserInteraction.error).is_not(None),
            col(UserInteraction.processing_time_ms),
            col(UserInteraction.created_at),
        )
        .where(
            *_counted(experiment_id, stage, until, version),
            col(UserInteraction.created_at) >= since,
        )
        .order_by(col(UserInteraction.created_at), col(UserInteraction.id))
    )
    return [
        AnswerFacts(bool(treated), bool(failed), latency, at)
        for treated, failed, latency, at in session.connection().execute(query).tuples()
    ]


def _counted(
    experiment_id: str, stage: Stage, until: datetime, version: str | None
) -> list[ColumnElement[bool]]:
    conditions = [
        col(UserInteraction.experiment_id) == experiment_id,
        col(UserInteraction.created_at) <= until,
    ]
    if stage != "shadow":
        conditions.append(col(UserInteraction.role) != "shadow")
    if version is not None:
        is_another = and_(
            col(UserInteraction.role).in_(("challenger", "shadow")),
            col(UserInteraction.model_version).is_distinct_from(version),
        )
        conditions.append(~is_another)
    return conditions


def _is_treatment(stage: Stage) -> ColumnElement[int]:
    """After a promotion the new champion is the treatment, and whoever holds back the control."""
    role = {"shadow": "shadow", "trial": "challenger", "holdback": "champion"}[stage]
    return case((col(UserInteraction.role) == role, 1), else_=0)


def _period(periods: Sequence[SharePeriod]) -> ColumnElement[int]:
    """The last period that had begun when the answer was given."""
    later = list(enumerate(periods))[1:]
    if not later:
        return literal(0)
    created_at = col(UserInteraction.created_at)
    return case(*((created_at >= period.since, number) for number, period in later[::-1]), else_=0)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _sum(
    condition: ColumnElement[bool], value: ColumnElement[float | None]
) -> ColumnElement[float]:
    return func.sum(case((condition, value), else_=0.0))
