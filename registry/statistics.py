"""Totals of what was asked, answered and said of it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, case, func
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from registry.models import DEFAULT_WORKLOAD, UserInteraction
from registry.privacy import may_be_learned


@dataclass(frozen=True)
class UsageStatistics:
    """Totals of one workload. Rates and means are None where nothing was counted."""

    total: int
    rated: int
    positive: int
    negative: int
    errors: int
    avg_quality: float | None

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
    thumb = col(UserInteraction.user_feedback)
    query = select_columns(
        func.count(),
        func.count(thumb),
        func.coalesce(func.sum(_one_if(thumb == 1)), 0),
        func.coalesce(func.sum(_one_if(thumb == -1)), 0),
        func.count(col(UserInteraction.error)),
        func.avg(col(UserInteraction.quality_score)),
    ).where(col(UserInteraction.workload) == workload, col(UserInteraction.role) != "shadow")
    if since is not None:
        query = query.where(col(UserInteraction.created_at) >= since)
    if until is not None:
        query = query.where(col(UserInteraction.created_at) < until)
    total, rated, positive, negative, errors, quality = session.connection().execute(query).one()
    return UsageStatistics(
        total=total,
        rated=rated,
        positive=positive,
        negative=negative,
        errors=errors,
        avg_quality=None if quality is None else float(quality),
    )


def count_quality_samples(
    session: Session,
    *,
    workload: str,
    min_quality: float,
    min_feedback: int,
    since: datetime | None,
) -> int:
    """Interactions that curation would accept, with feedback given after `since`."""
    score = col(UserInteraction.quality_score)
    # Conversations have no score: the format does not apply to them.
    good = (score >= min_quality) | (score.is_(None) & col(UserInteraction.messages).is_not(None))
    accepted = good & (col(UserInteraction.user_feedback) >= min_feedback)
    corrected = col(UserInteraction.corrected_output).is_not(None)
    query = select(func.count()).where(
        UserInteraction.workload == workload,
        col(UserInteraction.feedback_at).is_not(None),
        accepted | corrected,
        may_be_learned(),
    )
    if since is not None:
        query = query.where(col(UserInteraction.feedback_at) > since)
    return session.exec(query).one()


def _one_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)
