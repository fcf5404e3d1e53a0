"""Answers with what people said of them, for those who fit, weigh and pick."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select
from sqlalchemy import select as select_columns
from sqlmodel import Session, col

from registry import texts
from registry.crypto import Keyring
from registry.features import Sample
from registry.models import FeedbackEvent, ReviewItem, UserInteraction
from registry.privacy import may_be_learned
from registry.review import INFORMATIVE


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answer, and who asked."""

    id: str
    sample: Sample
    user_id: str | None
    quality_score: float | None
    scorer_version: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Event:
    """One piece of feedback on such an answer."""

    interaction_id: str
    rater: str | None
    """Whoever gave it, else whoever asked; None where nobody knows."""
    at: datetime
    thumb: int | None
    text: str | None
    corrected_output: str | None
    is_review: bool


def rated(
    session: Session, keyring: Keyring, *, workload: str, limit: int
) -> tuple[dict[str, Answered], list[Event]]:
    """The answers with the newest `limit` pieces of feedback, and these, oldest first."""
    event, row = FeedbackEvent, UserInteraction
    query = (
        _answers(workload)
        .add_columns(
            col(event.id).label("event_id"),
            col(event.rater_id),
            col(event.created_at).label("said_at"),
            col(event.thumb),
            col(event.text),
            col(event.corrected_output).label("correction"),
            col(event.is_review),
        )
        .join(event, col(event.interaction_id) == col(row.id))
        .order_by(col(event.created_at).desc(), col(event.id).desc())
        .limit(limit)
    )
    answers: dict[str, Answered] = {}
    events = []
    for found in reversed(session.connection().execute(query).all()):
        answers[found.id] = _answered(found, keyring)
        said = {"id": found.event_id, "text": found.text, "corrected_output": found.correction}
        said = texts.unseal_row("feedback_events", said, keyring)
        events.append(
            Event(
                interaction_id=found.id,
                rater=found.rater_id or found.user_id,
                at=found.said_at,
                thumb=found.thumb,
                text=said["text"],
                corrected_output=said["corrected_output"],
                is_review=found.is_review,
            )
        )
    return answers, events


def unrated(session: Session, keyring: Keyring, *, workload: str, limit: int) -> Sequence[Answered]:
    """The newest answers that nobody has said anything of, and nobody was asked to judge."""
    asked = (
        select_columns(col(ReviewItem.id))
        .where(
            col(ReviewItem.interaction_id) == col(UserInteraction.id),
            (col(ReviewItem.state) != "pending")
            | ~col(ReviewItem.reason).startswith(f"{INFORMATIVE}:"),
        )
        .exists()
    )
    unsaid = col(UserInteraction.feedback_at).is_(None)
    return _newest(session, keyring, workload, limit, unsaid, ~asked)


def answered_since(
    session: Session, keyring: Keyring, *, workload: str, since: datetime, limit: int
) -> Sequence[Answered]:
    """The newest answers given since then."""
    return _newest(session, keyring, workload, limit, col(UserInteraction.created_at) >= since)


def _newest(
    session: Session,
    keyring: Keyring,
    workload: str,
    limit: int,
    *conditions: ColumnElement[bool],
) -> Sequence[Answered]:
    row = UserInteraction
    query = (
        _answers(workload)
        .where(*conditions)
        .order_by(col(row.created_at).desc(), col(row.id).desc())
        .limit(limit)
    )
    return [_answered(found, keyring) for found in session.connection().execute(query)]


def _answers(workload: str) -> Select[Any]:
    """Answers that may be learned from: no shadows, no failures."""
    row = UserInteraction
    return select_columns(
        col(row.id),
        col(row.input_text),
        col(row.model_output),
        col(row.target_tool),
        col(row.language),
        col(row.user_id),
        col(row.quality_score),
        col(row.scorer_version),
        col(row.created_at),
        col(row.messages).is_not(None).label("is_chat"),
    ).where(
        col(row.workload) == workload,
        col(row.role) != "shadow",
        col(row.error).is_(None),
        may_be_learned(),
    )


def _answered(row: Any, keyring: Keyring) -> Answered:
    written = {name: getattr(row, name) for name in ("id", "input_text", "model_output")}
    written = texts.unseal_row("user_interactions", written, keyring)
    return Answered(
        id=row.id,
        sample=Sample(
            written["input_text"],
            written["model_output"],
            row.target_tool,
            row.language,
            bool(row.is_chat),
        ),
        user_id=row.user_id,
        quality_score=row.quality_score,
        scorer_version=row.scorer_version,
        created_at=row.created_at,
    )
