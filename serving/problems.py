"""Problem bodies (RFC 9457): every refusal says what is wrong, and with which field."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving.errors import OverloadedError

MEDIA_TYPE = "application/problem+json"
MAX_SHOWN_FAULTS = 10
MAX_SHOWN_NAME_CHARS = 100
RETRY_AFTER = {"Retry-After": "1"}

logger = logging.getLogger(__name__)


class ProblemError(Exception):
    """Ends a request with a problem body."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        faults: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.faults = tuple(faults)
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The problem as an HTTP response."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.field is not None:
            body["field"] = self.field
        if self.faults:
            body["errors"] = self.faults
        # ASCII, so that a field's name with half a surrogate pair can be told back.
        return Response(
            json.dumps(body), self.status, media_type=MEDIA_TYPE, headers=self.headers or None
        )


def from_validation(error: ValidationError) -> ProblemError:
    """A 422 that names the first wrong field, and lists the others."""
    faults = [
        {"field": _field(fault["loc"]), "detail": _shown(fault["msg"])}
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    first = faults[0]
    return ProblemError(
        422,
        f"{first['field']}: {first['detail']}" if first["field"] else first["detail"],
        field=first["field"] or None,
        faults=faults[:MAX_SHOWN_FAULTS],
    )


def install(app: FastAPI) -> None:
    """Have every error of `app` answered with a problem body."""

    @app.exception_handler(ProblemError)
    async def _problem(_request: Request, error: ProblemError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        return ProblemError(error.status_code, str(error.detail), headers=error.headers).response()

    @app.exception_handler(RequestValidationError)
    async def _parameters(_request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        name = _field(fault["loc"][1:])
        return ProblemError(422, f"{name}: {fault['msg']}", field=name).response()

    @app.exception_handler(OverloadedError)
    async def _overloaded(_request: Request, error: OverloadedError) -> Response:
        return ProblemError(503, str(error), headers=RETRY_AFTER).response()

    @app.exception_handler(OperationalError)
    async def _away(_request: Request, error: OperationalError) -> Response:
        logger.warning("a request needed the database, which is away: %s", error.orig)
        return ProblemError(503, "the database is out of reach", headers=RETRY_AFTER).response()

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return ProblemError(500, "the request failed; the log says why").response()


def _field(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location)[:MAX_SHOWN_NAME_CHARS]


def _shown(message: str) -> str:
    return message.removeprefix("Value error, ")
