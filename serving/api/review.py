"""The reviewers' queue: what waits for a judgement, judging it, and why a score is what it is."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request

from registry import people, quality, review, texts
from registry.errors import NotFoundError
from registry.features import Sample
from registry.interactions import Feedback
from registry.models import ReviewItem, UserInteraction
from serving.access.auth import Principal, ReviewerDep, reviewing_as
from serving.api import paging
from serving.api.body import read_body
from serving.api.paths import INTERACTION
from serving.api.service import Service, ServiceDep
from serving.review_schemas import (
    ExplanationResponse,
    Kind,
    ReasonItem,
    ReviewItemResponse,
    ReviewQueueResponse,
    ReviewRequest,
    ReviewResponse,
    State,
)
from serving.schemas import MAX_NAME_CHARS, Storable, json_schema

router = APIRouter(prefix="/api/review", tags=["Review"])
Workload = Annotated[
    str | None, Query(max_length=MAX_NAME_CHARS, description="Unset: the default.")
]
ANSWER_FIELDS = frozenset(ReviewItemResponse.model_fields) & frozenset(
    UserInteraction.model_fields
) - frozenset(ReviewItem.model_fields)


@router.get("/queue")
async def queue(
    service: ServiceDep,
    _caller: ReviewerDep,
    workload: Workload = None,
    kind: Kind | None = None,
    state: State = "pending",
    limit: paging.Limit = paging.DEFAULT_LIMIT,
    cursor: str | None = None,
) -> ReviewQueueResponse:
    """What waits for a reviewer, oldest first.

    Suspicious feedback (`quarantine`), text that gives orders to models (`injection`), what
    moderation found, and unrated answers whose label would teach most (`informative`).
    """
    name, limit = service.workload(workload), min(limit, paging.MAX_LIMIT)
    after = paging.decode(cursor) if cursor is not None else None

    def read() -> list[tuple[ReviewItem, UserInteraction]]:
        with service.database.read() as session:
            found = review.queue(
                session, workload=name, state=state, kind=kind, limit=limit + 1, after=after
            )
            for _item, answer in found:
                texts.reveal(answer, service.keyring)
            items = [item for item, _answer in found]
            people.reveal(session, items, service.keyring, column="decided_by")
            return list(found)

    found = await asyncio.to_thread(read)
    page = found[:limit]
    last = page[-1][0] if len(found) > limit else None
    return ReviewQueueResponse(
        items=[_item(item, answer) for item, answer in page],
        next=None if last is None else paging.encode(last.created_at, last.id),
    )


@router.post("/{item_id}", openapi_extra=json_schema(ReviewRequest))
async def decide(
    item_id: Storable, request: Request, service: ServiceDep, caller: ReviewerDep
) -> ReviewResponse:
    """Accept or reject an item, and say what the answer was worth."""
    body = await read_body(request, ReviewRequest, service.limits)
    state = await asyncio.to_thread(_decide, service, caller, item_id, body)
    return ReviewResponse(status="success", message="Decision recorded", id=item_id, state=state)


@router.get(f"/explain/{INTERACTION}")
async def explain(
    interaction_id: Storable, service: ServiceDep, _caller: ReviewerDep
) -> ExplanationResponse:
    """Why an answer has the score that it has."""

    def read() -> UserInteraction:
        with service.database.read() as session:
            row = session.get(UserInteraction, interaction_id)
        if row is None:
            raise NotFoundError(f"no interaction '{interaction_id}'")
        texts.reveal(row, service.keyring)
        return row

    row = await asyncio.to_thread(read)
    is_chat = row.messages is not None
    sample = Sample(row.input_text, row.model_output, row.target_tool, row.language, is_chat)
    active = service.scorers.active(row.workload)
    score = quality.judge(sample, active)
    return ExplanationResponse(
        interaction_id=row.id,
        stored_score=row.quality_score,
        stored_scorer_version=row.scorer_version,
        score=None if score is None else score.value,
        scorer_version=None if score is None else score.scorer_version,
        reasons=[
            ReasonItem(feature=reason.feature, value=reason.value, effect=reason.effect)
            for reason in quality.explain(sample, active)
        ],
    )


def _decide(service: Service, caller: Principal, item_id: str, body: ReviewRequest) -> str:
    with service.database.write() as session:
        item = review.get(session, item_id)
        label = _label(service, caller, item, body)
        act = service.act(caller, body.reason)
        accepted = body.decision == review.ACCEPTED
        return review.decide(session, act, item_id, accepted=accepted, label=label).state


def _label(
    service: Service, caller: Principal, item: ReviewItem, body: ReviewRequest
) -> Feedback | None:
    """What the reviewer says of the answer; None where nothing is said."""
    thumb = body.thumb
    if review.kind_of(item.reason) == review.INFORMATIVE and thumb is body.score is None:
        thumb = 1 if body.decision == review.ACCEPTED else -1
    said = (body.score, thumb, body.feedback_text, body.corrected_output)
    if all(part is None for part in said):
        return None
    return Feedback(
        interaction_id=item.interaction_id,
        score=body.score,
        thumb=thumb,
        text=body.feedback_text,
        corrected_output=body.corrected_output,
        rater_id=reviewing_as(caller, service.keyring),
        is_review=True,
    )


def _item(item: ReviewItem, answer: UserInteraction) -> ReviewItemResponse:
    return ReviewItemResponse(
        **{name: getattr(item, name) for name in ReviewItem.model_fields if name != "workload"},
        **{name: getattr(answer, name) for name in ANSWER_FIELDS},
        kind=review.kind_of(item.reason),
    )
