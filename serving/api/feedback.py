"""POST /api/feedback."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from registry.errors import NotFoundError
from registry.interactions import Feedback
from serving.access.auth import Principal, PrincipalDep, owner_of_rated, reviewing_as
from serving.api.body import parse, read_raw
from serving.api.once import DESCRIBED, event_id, once
from serving.api.replies import Json
from serving.api.service import Service, ServiceDep
from serving.errors import OverloadedError, RecordingError
from serving.problems import ProblemError, overloaded
from serving.schemas import FeedbackRequest, FeedbackResponse, json_schema

router = APIRouter(tags=["Answers"])


@router.post(
    "/api/feedback",
    response_model=FeedbackResponse,
    openapi_extra=json_schema(FeedbackRequest) | DESCRIBED,
)
async def feedback(request: Request, service: ServiceDep, caller: PrincipalDep) -> Response:
    """Say what an answer was worth."""
    raw = await read_raw(request, service.limits)
    body = parse(raw, FeedbackRequest, service.limits)

    async def work() -> Response:
        await _record(service, body, caller, event_id=event_id(request, caller, raw))
        return Json(FeedbackResponse(status="success", message="Feedback recorded"))

    return await once(
        request, service, caller, raw, work, user_id=caller.subject, holds_texts=False
    )


async def _record(
    service: Service, body: FeedbackRequest, caller: Principal, *, event_id: str | None
) -> None:
    try:
        await service.recorder.feedback(
            Feedback(
                id=event_id,
                interaction_id=body.interaction_id,
                score=body.score,
                thumb=body.thumb,
                text=body.feedback_text,
                corrected_output=body.corrected_output,
                owner=owner_of_rated(caller, service.keyring),
                rater_id=reviewing_as(caller, service.keyring),
                is_review=caller.role == "reviewer",
            )
        )
    except NotFoundError as error:
        raise ProblemError(
            404, "interaction_id: no such interaction", field="interaction_id"
        ) from error
    except (RecordingError, OverloadedError) as error:
        raise overloaded(str(error)) from error
