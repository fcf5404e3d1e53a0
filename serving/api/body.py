"""Reads a JSON body: bounded, in UTF-8, checked against a model; whatever is wrong is a 4xx."""

import asyncio
import json
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from serving.problems import ProblemError, from_validation
from serving.schemas import Body, Limits

OVERHEAD_BYTES = 64 * 1024
TEXTS = 2
"""Texts of the longest length in one body."""
ARRIVAL_S = 30.0
"""A body that has not arrived by then keeps the connection no longer."""
BYTES_PER_CHAR = 12
"""A character escaped as a surrogate pair."""

Model = TypeVar("Model", bound=Body)


async def read_body(request: Request, model: type[Model], limits: Limits) -> Model:
    """The body as `model`. Raises `ProblemError`: 400, 408, 413 or 422."""
    return parse(await read_raw(request, limits), model, limits)


async def read_optional(request: Request, model: type[Model], limits: Limits) -> Model:
    """The same where no body at all stands for an empty object."""
    return parse(await read_raw(request, limits) or b"{}", model, limits)


async def read_raw(request: Request, limits: Limits) -> bytes:
    """The body as it came. Raises `ProblemError`: 400, 408 or 413."""
    num_chars = max(TEXTS * limits.max_text_chars, limits.max_chat_chars)
    return await read_bytes(request, OVERHEAD_BYTES + BYTES_PER_CHAR * num_chars)


def parse(raw: bytes, model: type[Model], limits: Limits) -> Model:
    """A body as `model`. Raises `ProblemError`: 400 or 422."""
    value = parse_object(raw)
    try:
        return model.model_validate(value, context=limits)
    except ValidationError as error:
        raise from_validation(error) from error


def parse_object(raw: bytes) -> dict[str, Any]:
    """A body as a JSON object. Raises `ProblemError`: 400 or 422."""
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, "the body is not JSON in UTF-8", field="body") from error
    if not isinstance(value, dict):
        raise ProblemError(422, "the body must be a JSON object", field="body")
    return value


async def read_bytes(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises `ProblemError`: 400 where it is cut short, 408 where it is too slow, 413 beyond `limit`.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(ARRIVAL_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise ProblemError(413, f"the body exceeds {limit} bytes", field="body")
                chunks.append(chunk)
    except TimeoutError as error:
        detail = f"the body did not arrive within {ARRIVAL_S:g} s"
        raise ProblemError(408, detail, headers={"Connection": "close"}) from error
    except ClientDisconnect as error:
        raise ProblemError(400, "the body was cut short", field="body") from error
    return b"".join(chunks)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
