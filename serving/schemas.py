"""Bodies of requests and answers, and what is refused in them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

MAX_ID_CHARS = 256
MAX_NAME_CHARS = 100
MAX_VERSION_CHARS = 300
MAX_SEED = 2**63 - 1
MAX_TEMPERATURE = 2.0


def _storable(value: str) -> str:
    # PostgreSQL refuses NUL, and half a surrogate pair is no text in any encoding.
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must not hold half a surrogate pair") from error
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _whole(value: Any) -> Any:
    # In JSON, 1.0 is an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""For integers; their bounds come before it, or the schema would not show them."""
LIMIT = "x-limit"
"""Marks the part of a schema whose bound is a setting; `serving.openapi` writes it in."""
NO_NUL = r"^[^\u0000]*$"
NOT_BLANK = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"

Storable = Annotated[str, AfterValidator(_storable), Field(json_schema_extra={"pattern": NO_NUL})]
Text = Annotated[
    str,
    AfterValidator(_storable),
    AfterValidator(_not_blank),
    Field(
        json_schema_extra={
            "pattern": NOT_BLANK,
            LIMIT: "max_text_chars",
        }
    ),
]
Tokens = Annotated[int, Field(ge=1, json_schema_extra={LIMIT: "max_new_tokens"}), WHOLE]
Stars = Annotated[int, Field(ge=1, le=5), WHOLE]
Thumb = Annotated[int, Field(ge=-1, le=1), WHOLE]
Id = Annotated[Storable, Field(min_length=1, max_length=MAX_ID_CHARS)]
Name = Annotated[Storable, Field(max_length=MAX_NAME_CHARS)]


class Limits(BaseModel):
    """Limits that the settings give; passed as validation context."""

    model_config = ConfigDict(frozen=True)

    max_text_chars: int
    max_chat_chars: int
    max_new_tokens: int


class Body(BaseModel):
    """Base of request bodies: closed to unknown fields, no guessing between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def limit_text(value: str | None, info: ValidationInfo) -> str | None:
    """Validates the length of a text."""
    limit = info.context.max_text_chars if isinstance(info.context, Limits) else None
    if limit is not None and value is not None and len(value) > limit:
        raise ValueError(f"has {len(value)} characters, at most {limit} are taken")
    return value


def limit_tokens(value: int | None, info: ValidationInfo) -> int | None:
    """Validates a number of tokens to generate."""
    limit = info.context.max_new_tokens if isinstance(info.context, Limits) else None
    if limit is not None and value is not None and value > limit:
        raise ValueError(f"must be at most {limit}")
    return value


class GenerateRequest(Body):
    """A text that a structured prompt is wanted for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "text": "Write a professional email to request a meeting",
                    "language": "en",
                    "target_tool": "email",
                    "user_id": "user-123",
                }
            ]
        }
    )

    text: Text
    language: Name | None = "en"
    target_tool: Name | None = "general"
    user_id: Id | None = None
    session_id: Id | None = None
    model_version: Annotated[Storable, Field(max_length=MAX_VERSION_CHARS)] | None = None
    """A version, "champion", "challenger" or the base model's name: answered by it, whatever is
    being tried, and not counted."""
    workload: Name | None = None
    """Whose model is asked; unset, the default one's."""
    stream: bool = False
    """Send the answer as it is written, as server-sent events."""
    max_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] | None = None
    """0 is greedy."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED), WHOLE] | None = None

    _text_fits = field_validator("text")(limit_text)
    _max_tokens_fit = field_validator("max_tokens")(limit_tokens)


class GenerateResponse(BaseModel):
    """An answer, which is durable by now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "structured_prompt": "Role: assistant\nTask: Write an email",
                    "model_output": "Role: assistant\nTask: Write an email",
                    "tokens_used": 58,
                    "interaction_id": "019aa5b7-5d2c-7e0b-9d59-8c1f6f7f2f3a",
                    "model_version": "embedded-ft-1795311456",
                    "role": "champion",
                }
            ]
        }
    )

    structured_prompt: str
    model_output: str
    tokens_used: int
    interaction_id: str
    model_version: str
    """The version that answered; the base model's name where it was the base model."""
    role: str


_SAID = ("score", "thumb", "feedback_text", "corrected_output")


class FeedbackRequest(Body):
    """What is said of an answer: at least one thing. A score implies its thumb."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [name]} for name in _SAID],
            "examples": [
                {
                    "interaction_id": "019aa5b7-5d2c-7e0b-9d59-8c1f6f7f2f3a",
                    "score": 5,
                    "feedback_text": "Perfect!",
                }
            ],
        }
    )

    interaction_id: Id
    score: Stars | None = None
    thumb: Thumb | None = None
    feedback_text: (
        Annotated[Storable, Field(json_schema_extra={"pattern": NO_NUL, LIMIT: "max_text_chars"})]
        | None
    ) = None
    corrected_output: Text | None = None

    _text_fits = field_validator("feedback_text", "corrected_output")(limit_text)

    @model_validator(mode="after")
    def _says_something(self) -> "FeedbackRequest":
        if all(getattr(self, name) is None for name in _SAID):
            raise ValueError(f"give at least one of {', '.join(_SAID)}")
        return self


class FeedbackResponse(BaseModel):
    """What /api/feedback answers."""

    status: str
    message: str


class HistoryItem(BaseModel):
    """One past answer, as its user sees it."""

    interaction_id: str
    created_at: datetime
    text: str
    language: str | None
    target_tool: str | None
    structured_prompt: str
    model_output: str
    model_version: str | None
    feedback_score: int | None
    user_feedback: int | None
    feedback_text: str | None
    corrected_output: str | None


class HistoryResponse(BaseModel):
    """A page of a user's answers, newest first."""

    user_id: str
    interactions: Sequence[HistoryItem]
    next: str | None
    """Cursor of the next page; null on the last one."""


def json_schema(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """An OpenAPI request body for a model that the route reads by itself."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": required, "content": content}}
