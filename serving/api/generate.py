"""POST /api/generate."""

from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.responses import Response

from registry import prompts
from serving import events
from serving.access.auth import Principal, PrincipalDep, acting_user
from serving.api.body import parse, read_raw
from serving.api.leaving import unless_left
from serving.api.once import DESCRIBED, once, refuse_key
from serving.api.replies import Json
from serving.api.service import Service, ServiceDep, client_of
from serving.asking import Answer, Ask, Client, Piece
from serving.problems import from_unexpected
from serving.schemas import GenerateRequest, GenerateResponse, json_schema

router = APIRouter(tags=["Answers"])


@router.post(
    "/api/generate",
    response_model=GenerateResponse,
    openapi_extra=json_schema(GenerateRequest) | DESCRIBED,
    responses=events.RESPONSES,
)
async def generate(request: Request, service: ServiceDep, caller: PrincipalDep) -> Response:
    """Write a structured prompt for a text."""
    raw = await read_raw(request, service.limits)
    body = parse(raw, GenerateRequest, service.limits)
    ask = _ask(service, body, caller, client_of(request, service))
    if body.stream:
        refuse_key(request)
        pieces = service.answerer.stream(ask)
        # What fails before the first piece is refused with a status.
        first = await unless_left(request, anext(pieces))
        return events.EventStream(_events(events.chain(first, pieces)), pieces)

    async def work() -> Response:
        (answer,) = await unless_left(request, service.answerer.answer(ask))
        return Json(_response(answer))

    return await once(request, service, caller, raw, work, user_id=ask.user_id)


def _ask(service: Service, body: GenerateRequest, caller: Principal, client: Client) -> Ask:
    return Ask(
        messages=prompts.messages(body.text, target_tool=body.target_tool, language=body.language),
        text=body.text,
        sampling=service.sampling(
            max_new_tokens=body.max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            seed=body.seed,
        ),
        workload=service.workload(body.workload),
        version=body.model_version,
        target_tool=body.target_tool,
        language=body.language,
        user_id=acting_user(caller, body.user_id),
        session_id=body.session_id,
        client=client,
        asked_at=service.clock(),
    )


async def _events(pieces: AsyncGenerator[Piece | Answer]) -> AsyncGenerator[str]:
    """`delta` events with pieces of the output, then `answer` with all, or `error`."""
    try:
        async for item in pieces:
            if isinstance(item, Piece):
                yield events.event({"text": item.delta.text}, name="delta")
            else:
                yield events.event(_response(item).model_dump(), name="answer")
    except Exception as error:  # too late for a status: the stream itself has to say it
        yield events.event(from_unexpected(error).body(), name="error")


def _response(answer: Answer) -> GenerateResponse:
    return GenerateResponse(
        structured_prompt=answer.structured,
        model_output=answer.output,
        tokens_used=answer.reply.tokens_input + answer.reply.tokens_output,
        interaction_id=answer.id,
        model_version=answer.version,
        role=answer.role,
    )
