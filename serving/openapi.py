"""The OpenAPI document: what the routes cannot say of themselves is added here."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from serving.problems import MEDIA_TYPE, OPENAI_PREFIX
from serving.schemas import LIMIT, Limits

SCHEMAS = "#/components/schemas/"
DESCRIPTION = (
    "A team's language model that improves from use: ask it, say what its answers are worth, "
    "and steer which version answers. Requests may carry an Idempotency-Key where it says so."
)
PROBE_PATHS = ("/healthz", "/readyz")
BEARER = "bearer"
SECURITY = {BEARER: {"type": "http", "scheme": "bearer", "description": "A token, or an API key."}}
WITHOUT_BODY = (401, 403, 404, 422, 429, 500, 503)
WITH_BODY = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503, 504)
OF_PATH = {"/api/interactions": (410,)}
"""What only this path answers."""
MEANINGS = {
    400: "The body is no JSON, or cut short",
    401: "No valid credential",
    403: "Not allowed",
    404: "There is no such thing",
    408: "The body does not arrive",
    409: "It contradicts what is stored, or what the same Idempotency-Key asked for before",
    410: "What was asked before its user was erased is not taken",
    413: "The body is too large",
    422: "A field is wrong",
    429: "Too many requests; see Retry-After",
    500: "The model or the router failed",
    503: "Not possible at present; see Retry-After",
    504: "No answer in time",
}
OPENAI_MEANINGS = {400: "A parameter is wrong, or cannot be honoured"}


class Fault(BaseModel):
    """One wrong field."""

    field: str
    detail: str


class Problem(BaseModel):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    errors: list[Fault] | None = None


class OpenAIFault(BaseModel):
    """What is wrong, and with which parameter."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIProblem(BaseModel):
    """A refusal in the shape of OpenAI's API."""

    error: OpenAIFault


def install(app: FastAPI, limits: Limits, *, has_auth: bool) -> None:
    """Have `app` describe itself completely; `limits` are those of this installation.

    `has_auth`: callers are asked for a credential.
    """
    app.openapi = _cached(  # type: ignore[method-assign]
        lambda: _document(app, limits) | ({"security": [{BEARER: []}]} if has_auth else {})
    )


def _cached(make: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        if not found:
            found.append(make())
        return found[0]

    return openapi


def _document(app: FastAPI, limits: Limits) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (Problem, OpenAIProblem):
        schemas[model.__name__] = model.model_json_schema(ref_template=SCHEMAS + "{model}")
    for path, operation in _operations(document):
        _summarise(operation)
        _move_body(operation, schemas)
        operation["responses"] |= _refusals(path, has_body="requestBody" in operation)
        if path in PROBE_PATHS:
            operation["security"] = []
    document["components"]["securitySchemes"] = SECURITY
    for schema in list(schemas.values()):
        schemas.update(schema.pop("$defs", {}))
    # A copy, since parts of it belong to the models.
    document = deepcopy(document)
    _write_limits(document, limits)
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def _summarise(operation: dict[str, Any]) -> None:
    """The first sentence of the description, rather than the function's name."""
    summary, _, rest = operation["description"].partition("\n")
    operation["summary"] = summary.rstrip(".")
    operation["description"] = rest.strip() or summary
    operation["responses"].pop("422", None)


def _move_body(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """The body's schema goes where the others are."""
    if "requestBody" not in operation:
        return
    content = operation["requestBody"]["content"]["application/json"]
    schema = content["schema"]
    schemas[schema["title"]] = schema
    operation["requestBody"]["content"]["application/json"] = {
        **content,
        "schema": {"$ref": SCHEMAS + schema["title"]},
    }


def _refusals(path: str, *, has_body: bool) -> dict[str, Any]:
    if path in PROBE_PATHS:
        statuses: tuple[int, ...] = (500, 503)
    else:
        statuses = (*(WITH_BODY if has_body else WITHOUT_BODY), *OF_PATH.get(path, ()))
    is_openai = path.startswith(OPENAI_PREFIX)
    if is_openai:
        statuses = tuple(sorted({*statuses, 400} - {422}))
    meanings = MEANINGS | OPENAI_MEANINGS if is_openai else MEANINGS
    model = OpenAIProblem if is_openai else Problem
    schema = {"$ref": SCHEMAS + model.__name__}
    media_type = "application/json" if is_openai else MEDIA_TYPE
    return {
        str(status): {
            "description": meanings[status],
            "content": {media_type: {"schema": schema}},
        }
        for status in statuses
    }


def _write_limits(part: Any, limits: Limits) -> None:
    """Put this installation's limits where a schema names the setting."""
    if isinstance(part, list):
        for item in part:
            _write_limits(item, limits)
    if isinstance(part, dict):
        name = part.pop(LIMIT, None)
        if name is not None:
            word = "maximum" if part["type"] == "integer" else "maxLength"
            part[word] = getattr(limits, name)
        for item in part.values():
            _write_limits(item, limits)
