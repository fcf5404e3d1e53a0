"""POST /api/interactions: answers that something else has given, one or a batch."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy.exc import SQLAlchemyError

from serving.access.auth import PrincipalDep, owner_of_logged
from serving.api.body import parse_object, read_bytes
from serving.api.service import ServiceDep
from serving.errors import OverloadedError, RecordingError
from serving.problems import ProblemError
from serving.recording.intake import MAX_BATCH, MAX_BODY_BYTES, LoggedInteraction, LoggedResponse
from serving.recording.logging_in import Intake, Prepared, prepare, refusal

BATCH = "interactions"
RETRY_AFTER = {"Retry-After": "1"}

router = APIRouter(tags=["Answers"])


def _item_schema() -> dict[str, Any]:
    """The schema of one interaction, without references: the document has no such components."""
    schema = LoggedInteraction.model_json_schema()
    parts = schema.pop("$defs")

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(part) for part in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inline(parts[value["$ref"].rpartition("/")[2]])
        return {name: inline(part) for name, part in value.items()}

    return dict(inline(schema))


_BATCH_SCHEMA = {
    "type": "object",
    "title": "Batch",
    "additionalProperties": False,
    "required": [BATCH],
    "properties": {
        BATCH: {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": _item_schema()}
    },
}
_EXAMPLE = {
    "interactions": [
        {
            "id": "order-17",
            "created_at": "2026-01-14T12:00:00+01:00",
            "messages": [{"role": "user", "content": "Where is my order?"}],
            "model_output": "On its way.",
            "model_version": "gpt-x",
            "user_id": "user-123",
            "feedback": {"score": 4},
        }
    ]
}
_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"title": "Intake", "oneOf": [_item_schema(), _BATCH_SCHEMA]},
                "example": _EXAMPLE,
            }
        },
    }
}


@router.post("/api/interactions", response_model=LoggedResponse, openapi_extra=_SCHEMA)
async def log_interactions(
    request: Request, service: ServiceDep, caller: PrincipalDep
) -> LoggedResponse:
    """Write down what another system answered.

    A batch is answered with 200 and one result for each interaction, refused ones included;
    a single interaction that is refused is a problem with its own status.
    """
    raw = await read_bytes(request, MAX_BODY_BYTES)
    single, prepared = await asyncio.to_thread(_read, raw, caller)
    intake = Intake(service.database, service.recorder, judged_by=service.scorers.score)
    try:
        owner = owner_of_logged(caller, service.keyring)
        response = await intake.take(prepared, owner=owner)
    except (RecordingError, SQLAlchemyError) as error:
        raise ProblemError(
            503, "the interactions could not be written down", headers=RETRY_AFTER
        ) from error
    except OverloadedError as error:
        raise ProblemError(503, str(error), headers=RETRY_AFTER) from error
    if single and response.refused:
        raise refusal(response.results[0])
    return response


def _read(raw: bytes, caller: PrincipalDep) -> tuple[bool, list[Prepared]]:
    """Whether it is a single interaction, and what each one is. In a thread: it may be long."""
    body = parse_object(raw)
    if BATCH not in body:
        return True, [prepare(body, caller)]
    items = body[BATCH]
    if len(body) > 1 or not isinstance(items, list) or not 1 <= len(items) <= MAX_BATCH:
        raise ProblemError(
            422, f"{BATCH}: must be a list of 1 to {MAX_BATCH} interactions, alone", field=BATCH
        )
    return False, [prepare(item, caller) for item in items]
