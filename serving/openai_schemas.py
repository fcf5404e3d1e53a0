"""What POST /v1/chat/completions takes: OpenAI's fields, and what is refused in them.

A parameter that would change the answer, and that no engine here honours, is refused by
name unless it has a value that changes nothing.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from serving.schemas import (
    MAX_SEED,
    MAX_TEMPERATURE,
    NO_NUL,
    WHOLE,
    Body,
    Id,
    Limits,
    Storable,
)

MAX_MESSAGES = 512
MAX_CHOICES = 8
MAX_STOPS = 4
MAX_STOP_CHARS = 200
MAX_TOP_LOGPROBS = 20
MAX_MODEL_CHARS = 400
IGNORED_IN_PARTS = frozenset({"cache_control", "prompt_cache_breakpoint"})
"""Hints for caches that providers keep; they change no answer."""
NOTHING_ASKED = "Not supported: accepted only where it asks for nothing."


class _Only:
    """Marks a parameter that may be null or one of these values, and nothing else."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"enum": [*self._values, None], "description": NOTHING_ASKED}

    def _check(self, value: Any) -> Any:
        if value is None or any(type(value) is type(one) and value == one for one in self._values):
            return value
        raise ValueError("this is not supported; leave it out")


def _text_of(content: Any) -> Any:
    """A message's text, from a string or from text parts (one line each)."""
    if not isinstance(content, list):
        return content
    return "\n".join(_text_of_part(part) for part in content)


def _text_of_part(part: Any) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise ValueError("a part must be an object with a type")
    if part["type"] != "text":
        # As ASCII: half a surrogate pair could not be told back.
        raise ValueError(f"parts of type {part['type'][:40]!a} are not supported: only text is")
    others = part.keys() - {"type", "text"} - IGNORED_IN_PARTS
    if not isinstance(part.get("text"), str) or others:
        raise ValueError("a text part has a type, a text, and nothing else")
    return str(part["text"])


def _known_role(role: Any) -> Any:
    if role in ("tool", "function"):
        raise ValueError(f"messages of role '{role}' are not supported: tools are not")
    return role


_PART = {
    "type": "object",
    "properties": {
        "type": {"const": "text"},
        "text": {"type": "string", "pattern": NO_NUL},
        **{name: {"description": "Ignored."} for name in sorted(IGNORED_IN_PARTS)},
    },
    "required": ["type", "text"],
    "additionalProperties": False,
}
_CONTENT = {
    "anyOf": [
        {"type": "string", "pattern": NO_NUL},
        {"type": "array", "items": _PART},
        {"type": "null"},
    ],
    "description": "Only the assistant's may be null or missing.",
}
Tokens = Annotated[int, Field(ge=1), WHOLE]
"""More than `serving.max_new_tokens` counts as that: the answer tells how it ended."""
Stop = Annotated[Storable, Field(min_length=1, max_length=MAX_STOP_CHARS)]
_STOP_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_STOP_CHARS,
    "pattern": NO_NUL,
}
_STOP = {
    "anyOf": [
        _STOP_SCHEMA,
        {"type": "array", "items": _STOP_SCHEMA, "maxItems": MAX_STOPS},
        {"type": "null"},
    ]
}


class ChatMessage(Body):
    """One turn of a conversation."""

    model_config = ConfigDict(json_schema_extra={"required": ["role"]})

    role: Annotated[
        Literal["system", "developer", "user", "assistant"], BeforeValidator(_known_role)
    ]
    content: Annotated[Storable, BeforeValidator(_text_of), WithJsonSchema(_CONTENT)]
    name: Annotated[Storable, Field(max_length=100)] | None = None
    """Accepted, and not shown to the model."""
    tool_calls: Annotated[Any, _Only([])] = None
    function_call: Annotated[Any, _Only()] = None
    audio: Annotated[Any, _Only()] = None
    refusal: Annotated[Any, _Only()] = None
    annotations: Annotated[Any, _Only([])] = None

    @model_validator(mode="before")
    @classmethod
    def _may_have_said_nothing(cls, message: Any) -> Any:
        is_of_the_assistant = isinstance(message, dict) and message.get("role") == "assistant"
        if is_of_the_assistant and message.get("content") is None:
            return {**message, "content": ""}
        return message


class StreamOptions(Body):
    """How a stream is sent."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, _Only(False)] = None


class ChatRequest(Body):
    """A conversation to be answered."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "kalimtak",
                    "messages": [{"role": "user", "content": "Write an email"}],
                    "user": "user-123",
                }
            ]
        }
    )

    model: Annotated[Storable, Field(min_length=1, max_length=MAX_MODEL_CHARS)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] | None = None
    """0 is greedy."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=1000), WHOLE] | None = None
    """Beyond OpenAI's API."""
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    stop: Annotated[
        Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None,
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        WithJsonSchema(_STOP),
    ] = None
    seed: Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED), WHOLE] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), WHOLE] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Id | None = None
    session_id: Id | None = None
    """Beyond OpenAI's API: requests without a user stick to a version by it."""

    metadata: dict[str, Any] | None = None
    store: Annotated[Any, _Only(False)] = None
    parallel_tool_calls: bool | None = None
    service_tier: Annotated[Any, _Only("auto", "default")] = None
    safety_identifier: Storable | None = None
    prompt_cache_key: Storable | None = None
    prompt_cache_retention: Storable | None = None
    prompt_cache_options: dict[str, Any] | None = None

    frequency_penalty: Annotated[Any, _Only(0, 0.0)] = None
    presence_penalty: Annotated[Any, _Only(0, 0.0)] = None
    logit_bias: Annotated[Any, _Only({})] = None
    response_format: Annotated[Any, _Only({"type": "text"})] = None
    tools: Annotated[Any, _Only([])] = None
    tool_choice: Annotated[Any, _Only("none", "auto")] = None
    functions: Annotated[Any, _Only([])] = None
    function_call: Annotated[Any, _Only("none", "auto")] = None
    modalities: Annotated[Any, _Only(["text"])] = None
    audio: Annotated[Any, _Only()] = None
    prediction: Annotated[Any, _Only()] = None
    web_search_options: Annotated[Any, _Only()] = None
    reasoning_effort: Annotated[Any, _Only("none")] = None
    verbosity: Annotated[Any, _Only("medium")] = None
    moderation: Annotated[Any, _Only()] = None

    @field_validator("messages")
    @classmethod
    def _fits(cls, messages: list[ChatMessage], info: ValidationInfo) -> list[ChatMessage]:
        if not any(message.role != "assistant" and message.content.strip() for message in messages):
            raise ValueError("there must be a message with text in it, and not the assistant's")
        num_chars = sum(len(message.content) for message in messages)
        limit = info.context.max_chat_chars if isinstance(info.context, Limits) else num_chars
        if num_chars > limit:
            raise ValueError(f"have {num_chars} characters together, at most {limit} are taken")
        return messages

    @field_validator("top_logprobs")
    @classmethod
    def _goes_with_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise ValueError("needs logprobs to be true")
        return value

    @field_validator("stream_options")
    @classmethod
    def _goes_with_stream(
        cls, value: StreamOptions | None, info: ValidationInfo
    ) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise ValueError("needs stream to be true")
        return value

    @model_validator(mode="after")
    def _limits_agree(self) -> "ChatRequest":
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise ValueError("max_tokens and max_completion_tokens differ: give one of them")
        return self
