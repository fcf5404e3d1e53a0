"""Training-data candidates: the interactions that curation would accept, for people to look at."""

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, exists, select

from registry.models import TrainingData, UserInteraction
from registry.privacy import may_be_learned


def candidates(
    session: Session,
    *,
    workload: str,
    min_quality: float,
    min_quality_if_liked: float,
    min_feedback: int,
    limit: int,
    before: tuple[datetime, str] | None = None,
) -> Sequence[tuple[UserInteraction, bool]]:
    """Accepted and corrected answers, latest feedback first, and whether each is curated already.

    `before`: the moment of feedback and the id of the row that the page follows.
    """
    feedback_at, row_id = col(UserInteraction.feedback_at), col(UserInteraction.id)
    score, thumb = col(UserInteraction.quality_score), col(UserInteraction.user_feedback)
    is_liked = (score >= min_quality_if_liked) & (thumb >= 1)
    accepted = is_liked | ((score >= min_quality) & (thumb >= min_feedback))
    corrected = col(UserInteraction.corrected_output).is_not(None)
    is_curated = exists().where(col(TrainingData.source_interaction_id) == row_id)
    query = select(UserInteraction, is_curated).where(
        UserInteraction.workload == workload,
        feedback_at.is_not(None),
        col(UserInteraction.error).is_(None),
        accepted | corrected,
        may_be_learned(),
    )
    if before is not None:
        earlier = feedback_at < before[0]
        query = query.where(earlier | ((feedback_at == before[0]) & (row_id < before[1])))
    rows = session.exec(query.order_by(feedback_at.desc(), row_id.desc()).limit(limit))
    return [(row, bool(curated)) for row, curated in rows]
