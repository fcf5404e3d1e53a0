"""GET /api/history/{user_id}."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter

from registry import interactions
from registry.models import UserInteraction
from serving.access.auth import PrincipalDep, may_read_user
from serving.api import paging
from serving.api.paths import USER
from serving.api.service import Service, ServiceDep
from serving.problems import ProblemError
from serving.schemas import MAX_ID_CHARS, HistoryItem, HistoryResponse

router = APIRouter(tags=["Answers"])


@router.get(f"/api/history/{USER}")
async def history(
    user_id: str,
    service: ServiceDep,
    caller: PrincipalDep,
    limit: paging.Limit = paging.DEFAULT_LIMIT,
    cursor: str | None = None,
) -> HistoryResponse:
    """A user's answers, newest first; at most 100 a page, whatever `limit` asks for."""
    if not user_id or len(user_id) > MAX_ID_CHARS:
        raise ProblemError(
            422, f"user_id: must have 1 to {MAX_ID_CHARS} characters", field="user_id"
        )
    may_read_user(caller, user_id)
    limit = min(limit, paging.MAX_LIMIT)
    before = paging.decode(cursor) if cursor is not None else None
    rows = await asyncio.to_thread(_read, service, user_id, limit + 1, before)
    page = rows[:limit]
    return HistoryResponse(
        user_id=user_id,
        interactions=[_item(row) for row in page],
        next=paging.encode(page[-1].created_at, page[-1].id) if len(rows) > limit else None,
    )


def _read(
    service: Service, user_id: str, limit: int, before: tuple[datetime, str] | None
) -> Sequence[UserInteraction]:
    with service.database.read() as session:
        return interactions.history(
            session,
            user_id=service.keyring.pseudonym(user_id),
            limit=limit,
            before=before[0] if before else None,
            before_id=before[1] if before else None,
            failed=False,
            keyring=service.keyring,
        )


def _item(row: UserInteraction) -> HistoryItem:
    return HistoryItem(
        interaction_id=row.id,
        created_at=row.created_at,
        text=row.input_text,
        language=row.language,
        target_tool=row.target_tool,
        structured_prompt=row.structured_prompt,
        model_output=row.model_output,
        model_version=row.model_version,
        feedback_score=row.feedback_score,
        user_feedback=row.user_feedback,
        feedback_text=row.feedback_text,
        corrected_output=row.corrected_output,
    )
