"""Problem bodies (RFC 9457): every refusal says what is wrong, and with which field."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from registry.db import is_unavailable
from registry.errors import ConflictError, KalimtakError, NotFoundError, SettingsError
from serving.errors import OrchestratorError, OverloadedError

MEDIA_TYPE = "application/problem+json"
MAX_SHOWN_FAULTS = 10
MAX_RENDERED_FAULTS = 1_000
MAX_SHOWN_NAME_CHARS = 100
RETRY_AFTER = {"Retry-After": "1"}
OPENAI_PREFIX = "/v1/"
"""Errors below it have the shape that OpenAI's clients read."""
OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
STATUSES: dict[type[Exception], int] = {
    NotFoundError: 404,
    ConflictError: 409,
    SettingsError: 422,
    OrchestratorError: 503,
}
"""What is refused below the routes."""
OPENAI_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}

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
        code: str | None = None,
    ) -> None:
        """`code` is a word for programs, as OpenAI's API has them."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.code = code
        self.faults = tuple(faults)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The problem body."""
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
        return body

    def openai_body(self) -> dict[str, Any]:
        """The same in the shape of OpenAI's API."""
        status = self.openai_status
        return {
            "error": {
                "message": self.detail,
                "type": OPENAI_TYPES.get(
                    status, "invalid_request_error" if status < 500 else "server_error"
                ),
                "param": self.field,
                "code": self.code or OPENAI_CODES.get(status),
            }
        }

    @property
    def openai_status(self) -> int:
        """OpenAI's API knows no 422."""
        return 400 if self.status == 422 else self.status

    def response(self, *, openai: bool = False) -> Response:
        """The problem as an HTTP response."""
        # ASCII, so that a field's name with half a surrogate pair can be told back.
        return Response(
            json.dumps(self.openai_body() if openai else self.body()),
            self.openai_status if openai else self.status,
            media_type="application/json" if openai else MEDIA_TYPE,
            headers=self.headers or None,
        )


def overloaded(detail: str) -> ProblemError:
    """A 503 that may be tried again soon."""
    return ProblemError(503, detail, headers=RETRY_AFTER)


def from_validation(error: ValidationError) -> ProblemError:
    """A 422 that names the first wrong field, and lists the others."""
    if error.error_count() > MAX_RENDERED_FAULTS:
        # Telling one of them means telling all, which takes seconds of a large body.
        return ProblemError(422, f"the body has {error.error_count()} faults", field="body")
    faults = [
        {"field": _field(fault["loc"]), "detail": _shown(fault)}
        for fault in error.errors(include_url=False, include_input=False)
    ]
    first = faults[0]
    return ProblemError(
        422,
        f"{first['field']}: {first['detail']}" if first["field"] else first["detail"],
        field=first["field"] or None,
        faults=faults[:MAX_SHOWN_FAULTS],
    )


def from_unexpected(error: Exception) -> ProblemError:
    """Any exception as a problem: what is no refusal of ours goes to the log, not to the caller."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, OverloadedError):
        return overloaded(str(error))
    for kind, status in STATUSES.items():
        if isinstance(error, kind):
            headers = RETRY_AFTER if status == HTTPStatus.SERVICE_UNAVAILABLE else None
            return ProblemError(status, str(error), headers=headers)
    if isinstance(error, SQLAlchemyError) and is_unavailable(error):
        logger.warning("the database is out of reach: %s", error)
        return overloaded("the database is out of reach")
    logger.error("a request failed", exc_info=error)
    return ProblemError(500, "the request failed; the log says why")


def answer_with(request: Request, error: ProblemError) -> Response:
    """The error in the shape that clients of this path read."""
    return error.response(openai=request.url.path.startswith(OPENAI_PREFIX))


def install(app: FastAPI) -> None:
    """Have every error of `app` answered in the shape that its path's clients read."""

    @app.exception_handler(ProblemError)
    async def _problem(request: Request, error: ProblemError) -> Response:
        return answer_with(request, error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        problem = ProblemError(error.status_code, str(error.detail), headers=error.headers)
        return answer_with(request, problem)

    @app.exception_handler(RequestValidationError)
    async def _parameters(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        name = _field(fault["loc"][1:])
        return answer_with(request, ProblemError(422, f"{name}: {fault['msg']}", field=name))

    @app.exception_handler(KalimtakError)
    @app.exception_handler(SQLAlchemyError)
    async def _registry(request: Request, error: Exception) -> Response:
        return answer_with(request, from_unexpected(error))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        return answer_with(request, from_unexpected(error))


def _field(location: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in location)[:MAX_SHOWN_NAME_CHARS]


def _shown(fault: ErrorDetails) -> str:
    about = fault.get("ctx", {})
    if about.get("field_type") == "Value":  # a text that was checked before it was measured
        if "max_length" not in about:
            return "must not be empty"
        return f"has {about['actual_length']} characters, at most {about['max_length']} are taken"
    return fault["msg"].removeprefix("Value error, ")
