"""POST /api/interactions: answers that something else has given, one or a batch."""

import asyncio

from fastapi import APIRouter, Request
from sqlalchemy.exc import SQLAlchemyError

from serving.api.body import parse_object, read_bytes
from serving.api.service import ServiceDep
from serving.auth import PrincipalDep
from serving.errors import OverloadedError, RecordingError
from serving.intake import MAX_BATCH, MAX_BODY_BYTES, LoggedInteraction, LoggedResponse
from serving.logging_in import Intake, Prepared, prepare, refusal
from serving.problems import ProblemError

BATCH = "interactions"
RETRY_AFTER = {"Retry-After": "1"}

router = APIRouter()

_ITEM = LoggedInteraction.model_json_schema(ref_template="#/components/schemas/{model}")
_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {key: value for key, value in _ITEM.items() if key != "$defs"},
                        {
                            "type": "object",
                            "title": "Batch",
                            "additionalProperties": False,
                            "required": [BATCH],
                            "properties": {
                                BATCH: {
                                    "type": "array",
                                    "minItems": 1,
                                    "maxItems": MAX_BATCH,
                                    "items": {"type": "object"},
                                }
                            },
                        },
                    ]
                },
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
    intake = Intake(service.database, service.recorder)
    try:
        response = await intake.take(prepared)
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
