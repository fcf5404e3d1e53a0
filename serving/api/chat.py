"""POST /v1/chat/completions: OpenAI's protocol."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving import events
from serving.access.auth import Principal, PrincipalDep, acting_user
from serving.api.body import parse, read_raw
from serving.api.leaving import unless_left
from serving.api.once import DESCRIBED, once, refuse_key
from serving.api.replies import Json
from serving.api.service import Service, ServiceDep, client_of
from serving.asking import Ask, Client
from serving.completions import Chunks, Completion, completion
from serving.openai_schemas import ChatMessage, ChatRequest
from serving.schemas import MAX_SEED, json_schema

router = APIRouter(tags=["OpenAI"])


@router.post(
    "/v1/chat/completions",
    response_model=Completion,
    openapi_extra=json_schema(ChatRequest) | DESCRIBED,
    responses=events.RESPONSES,
)
async def complete(request: Request, service: ServiceDep, caller: PrincipalDep) -> Response:
    """Answer a conversation."""
    raw = await read_raw(request, service.limits)
    body = parse(raw, ChatRequest, service.limits)
    ask = _ask(service, body, caller, client_of(request, service))
    choices = body.n or 1
    if body.stream:
        refuse_key(request)
        options = body.stream_options
        chunks = Chunks(
            with_logprobs=bool(body.logprobs),
            with_usage=bool(options and options.include_usage),
        )
        pieces = service.answerer.stream(ask, choices=choices)
        # What fails before the first piece is refused with a status.
        first = await unless_left(request, anext(pieces))
        return events.EventStream(chunks.events(events.chain(first, pieces)), pieces)

    async def work() -> Response:
        answers = await unless_left(request, service.answerer.answer(ask, choices=choices))
        return Json(completion(answers, with_logprobs=bool(body.logprobs)))

    return await once(request, service, caller, raw, work, user_id=ask.user_id)


def _ask(service: Service, body: ChatRequest, caller: Principal, client: Client) -> Ask:
    target = service.target(body.model)
    max_tokens = body.max_completion_tokens or body.max_tokens
    return Ask(
        messages=[_message(message) for message in body.messages],
        text=_asked(body.messages),
        sampling=service.sampling(
            max_new_tokens=max_tokens and min(max_tokens, service.limits.max_new_tokens),
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            # OpenAI's seeds may be negative.
            seed=None if body.seed is None else body.seed & MAX_SEED,
            stop=tuple(body.stop or ()),
            top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        ),
        workload=target.workload,
        version=target.version,
        is_chat=True,
        user_id=acting_user(caller, body.user, field="user"),
        session_id=body.session_id,
        client=client,
        asked_at=service.clock(),
    )


def _asked(messages: Sequence[ChatMessage]) -> str:
    """What the user said last; where there is none, the last instruction."""
    said = [
        message for message in messages if message.role != "assistant" and message.content.strip()
    ]
    return next((m.content for m in reversed(said) if m.role == "user"), said[-1].content)


def _message(message: ChatMessage) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": message.content}
