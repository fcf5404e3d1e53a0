"""How the latest feedback is shown on its interaction: one prepared statement."""

from typing import Any, Final

from sqlalchemy import ColumnElement, String, bindparam, case, func, update
from sqlalchemy.sql.dml import ReturningUpdate
from sqlmodel import col, select

from registry.models import FeedbackEvent, UserInteraction
from registry.models.columns import UtcDateTime

SHOWN = ("feedback_score", "user_feedback", "feedback_text", "corrected_output")
"""Columns of an interaction that feedback sets."""


def rated_kind(corrected: ColumnElement[Any]) -> ColumnElement[str]:
    """What an interaction is to curation, once it has feedback."""
    return case(
        (corrected.is_not(None), "corrected"),
        (col(UserInteraction.messages).is_not(None), "chat"),
        else_="prompt",
    )


def _statement() -> ReturningUpdate[Any]:
    """Shows what an event says, unless it is known, late, or about somebody else's answer.

    Built once: building it takes longer than carrying it out.
    """
    table = UserInteraction

    def new(name: str) -> ColumnElement[Any]:
        column: Any = getattr(table, name)
        return func.coalesce(bindparam(f"new_{name}", type_=column.type), column)

    about, owner = bindparam("about", type_=String), bindparam("owner", type_=String)
    later = (col(FeedbackEvent.interaction_id) == about) & (
        col(FeedbackEvent.created_at) > bindparam("given_at", type_=UtcDateTime)
    )
    known = col(FeedbackEvent.id) == bindparam("event", type_=String)
    known_or_late = select(FeedbackEvent.id).where(known | later)
    return (
        update(table)
        .where(
            col(table.id) == about,
            owner.is_(None) | (col(table.user_id) == owner),
            ~known_or_late.exists(),
        )
        .values(
            {name: new(name) for name in SHOWN}
            | {"rated_kind": rated_kind(new("corrected_output"))}
            | dict.fromkeys(("feedback_at", "updated_at"), bindparam("now", type_=UtcDateTime))
        )
        .returning(col(table.workload), col(table.model_version))
    )


SHOW: Final = _statement()
