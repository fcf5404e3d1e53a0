"""POST /api/feedback."""

from fastapi import APIRouter, Request

from registry.errors import NotFoundError
from registry.interactions import Feedback
from serving.api.body import read_body
from serving.api.service import ServiceDep
from serving.auth import PrincipalDep, owner_of_rated
from serving.errors import OverloadedError, RecordingError
from serving.problems import ProblemError, overloaded
from serving.schemas import FeedbackRequest, FeedbackResponse, json_schema

router = APIRouter()


@router.post(
    "/api/feedback", response_model=FeedbackResponse, openapi_extra=json_schema(FeedbackRequest)
)
async def feedback(request: Request, service: ServiceDep, caller: PrincipalDep) -> FeedbackResponse:
    """Say what an answer was worth."""
    body = await read_body(request, FeedbackRequest, service.limits)
    try:
        await service.recorder.feedback(
            Feedback(
                interaction_id=body.interaction_id,
                score=body.score,
                thumb=body.thumb,
                text=body.feedback_text,
                corrected_output=body.corrected_output,
                owner=owner_of_rated(caller, service.keyring),
            )
        )
    except NotFoundError as error:
        raise ProblemError(
            404, "interaction_id: no such interaction", field="interaction_id"
        ) from error
    except (RecordingError, OverloadedError) as error:
        raise overloaded(str(error)) from error
    return FeedbackResponse(status="success", message="Feedback recorded")
