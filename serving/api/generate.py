"""POST /api/generate."""

from fastapi import APIRouter, Request

from serving.answering import Client
from serving.api.body import read_body
from serving.api.service import ServiceDep
from serving.errors import OverloadedError
from serving.problems import ProblemError
from serving.schemas import GenerateRequest, GenerateResponse, json_schema

MAX_USER_AGENT_CHARS = 512

router = APIRouter()


@router.post(
    "/api/generate", response_model=GenerateResponse, openapi_extra=json_schema(GenerateRequest)
)
async def generate(request: Request, service: ServiceDep) -> GenerateResponse:
    """Write a structured prompt for a text."""
    body = await read_body(request, GenerateRequest, service.limits)
    try:
        return await service.answerer.answer(body, _client(request))
    except OverloadedError as error:
        raise ProblemError(503, str(error), headers={"Retry-After": "1"}) from error


def _client(request: Request) -> Client:
    # Forwarding headers are not looked at: anyone can write them.
    agent = request.headers.get("user-agent")
    return Client(
        ip_address=request.client.host if request.client else None,
        user_agent=agent[:MAX_USER_AGENT_CHARS] if agent else None,
    )
