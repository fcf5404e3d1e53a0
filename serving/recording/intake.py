"""Interactions that something else has answered: what is taken, and what they become.

`input_text` is a request for a structured prompt, as /api/generate takes it; `messages` is a
chat, kept as it was. The import of files uses the same checks.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from registry import prompts
from registry.interactions import Feedback, Interaction, Source
from registry.models import DEFAULT_WORKLOAD
from serving.schemas import MAX_VERSION_CHARS, Body, Id, Name, Storable, Text

MAX_BATCH = 500
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_CHARS = 200_000
"""Of one text; of all texts of a chat together."""
MAX_TURNS = 500
MAX_PARTS = 1_000
"""Of one message."""
MAX_DEPTH = 20
MAX_TOKENS = 10**9
"""Of the question, and of the answer; an integer column of PostgreSQL holds the sum."""
MAX_MS = 1e9
SKEW = timedelta(minutes=10)
"""How far a caller's clock may be ahead of ours."""
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)

LongText = Annotated[Text, Field(max_length=MAX_CHARS)]
Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]


def _after_1970(value: datetime) -> datetime:
    if value < EARLIEST:
        raise ValueError(f"{value.isoformat()} is before 1970")
    return value


class FeedbackGiven(Body):
    """What a person said of the answer: at least one thing."""

    score: Annotated[int, Field(ge=1, le=5)] | None = None
    thumb: Annotated[int, Field(ge=-1, le=1)] | None = None
    feedback_text: Annotated[Storable, Field(max_length=MAX_CHARS)] | None = None
    corrected_output: LongText | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "FeedbackGiven":
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError("give at least one of score, thumb, feedback_text, corrected_output")
        return self


class Turn(BaseModel):
    """One message of a chat; what else it holds (tool calls, names) is kept."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    role: Annotated[Storable, Field(min_length=1, max_length=50)]
    content: str | Annotated[list[dict[str, Any]], Field(max_length=MAX_PARTS)] | None = None
    name: Storable | None = None
    tool_call_id: Storable | None = None


class LoggedInteraction(Body):
    """One request with the answer that another system gave."""

    id: Id | None = None
    """Your own id; sent again with the same content, nothing changes."""
    created_at: (
        Annotated[AwareDatetime, Field(strict=False), AfterValidator(_after_1970)] | None
    ) = None
    """When it was answered, with time zone; unset: now."""
    input_text: LongText | None = None
    """A request for a structured prompt; or give `messages`."""
    messages: Annotated[list[Turn], Field(min_length=1, max_length=MAX_TURNS)] | None = None
    """A chat up to and including the last turn of the user."""
    model_output: Annotated[Storable, Field(max_length=MAX_CHARS)] = ""
    error: Annotated[Storable, Field(min_length=1, max_length=1000)] | None = None
    """Why there is no answer."""
    model_version: Annotated[Storable, Field(min_length=1, max_length=MAX_VERSION_CHARS)] | None = (
        None
    )
    """A version of ours, or any name that the answering model goes by."""
    workload: Annotated[Name, Field(min_length=1)] = DEFAULT_WORKLOAD
    user_id: Id | None = None
    session_id: Id | None = None
    target_tool: Name | None = None
    language: Name | None = None
    tokens_input: Tokens | None = None
    tokens_output: Tokens | None = None
    processing_time_ms: Annotated[float, Field(ge=0, le=MAX_MS, allow_inf_nan=False)] | None = None
    feedback: FeedbackGiven | None = None

    @model_validator(mode="after")
    def _is_an_exchange(self) -> "LoggedInteraction":
        if (self.input_text is None) == (self.messages is None):
            raise ValueError("give either input_text or messages")
        if self.error is None and not self.model_output.strip():
            raise ValueError("model_output: must not be blank unless there is an error")
        if self.error is not None and self.feedback is not None:
            raise ValueError("feedback: a request that failed has no answer to judge")
        if self.messages is not None:
            _check_chat(self.messages)
        return self

    @property
    def question(self) -> str:
        """What was asked: `input_text`, or the text of the user's last turn."""
        if self.input_text is not None:
            return self.input_text
        return _asked(self.messages or [])


class LoggedResult(BaseModel):
    """What became of one interaction."""

    index: int
    """Its place in the batch."""
    interaction_id: str | None
    status: Literal["created", "duplicate", "refused"]
    """duplicate: it was known, with the same content."""
    error: dict[str, Any] | None = None
    """Why it was refused: `status` (as in HTTP), `detail`, `field`."""


class LoggedResponse(BaseModel):
    """What /api/interactions answers: one result for each interaction, in the order sent."""

    created: int
    duplicates: int
    refused: int
    results: list[LoggedResult]


@dataclass(frozen=True)
class Origin:
    """What is known of an interaction beside what it says itself."""

    row_id: str
    source: Source
    user_id: str | None
    now: datetime
    versions: frozenset[str] = frozenset()
    """Versions of ours, among those that are named."""


def is_future(moment: datetime, *, now: datetime) -> bool:
    """Whether a caller's time lies further ahead than clocks differ."""
    return moment > now + SKEW


def to_interaction(item: LoggedInteraction, origin: Origin) -> Interaction:
    """The row to write, without a score yet; it never counts in a trial."""
    ours = item.model_version in origin.versions
    output = item.model_output
    chat = item.messages is not None
    return Interaction(
        id=origin.row_id,
        created_at=min(item.created_at or origin.now, origin.now),
        input_text=item.question,
        messages=dump_turns(item.messages) if item.messages is not None else None,
        structured_prompt=(
            output.strip() if chat else prompts.normalise(output, target_tool=item.target_tool)
        ),
        model_output=output,
        workload=item.workload,
        external_user_id=origin.user_id,
        session_id=item.session_id,
        tokens_input=item.tokens_input,
        tokens_output=item.tokens_output,
        processing_time_ms=item.processing_time_ms,
        model_version=item.model_version if ours else None,
        external_model=None if ours else item.model_version,
        source=origin.source,
        target_tool=item.target_tool,
        language=item.language,
        error=item.error,
    )


def to_feedback(given: FeedbackGiven, *, interaction_id: str) -> Feedback:
    """The feedback as the registry takes it; sent again, it is the same event."""
    return Feedback(
        id=hashlib.sha256(f"sent with {interaction_id}".encode()).hexdigest(),
        interaction_id=interaction_id,
        score=given.score,
        thumb=given.thumb,
        text=given.feedback_text,
        corrected_output=given.corrected_output,
    )


def dump_turns(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns as they are stored: what was not given is not there."""
    return [turn.model_dump(exclude_unset=True) for turn in turns]


def text_of(content: str | list[Any] | None) -> str:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(part for part in parts if isinstance(part, str))
    return content or ""


def _check_chat(turns: Sequence[Turn]) -> None:
    if turns[-1].role == "assistant":
        raise ValueError("messages: the last turn is the assistant's; it belongs in model_output")
    if not _asked(turns).strip():
        raise ValueError("messages: no turn of the user says anything")
    # As they are: a copy of what is too large would take as long as it is large.
    _check_storable(
        [{name: getattr(turn, name) for name in turn.model_fields_set} for turn in turns]
    )


def _asked(turns: Sequence[Turn]) -> str:
    texts = (text_of(turn.content) for turn in reversed(turns) if turn.role == "user")
    return next(texts, "")


def _check_storable(value: Any) -> None:
    """Raise `ValueError` where nested JSON cannot be stored, or is too large."""
    left, todo = MAX_CHARS, [(value, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise ValueError("messages: nested too deeply")
        left -= _size(value)
        if isinstance(value, dict):
            value = [*value.keys(), *value.values()]
        if isinstance(value, list):
            left -= len(value)  # so that what is empty counts too
            todo += [(part, depth + 1) for part in value] if left >= 0 else []
        if left < 0:
            raise ValueError(f"messages: at most {MAX_CHARS} characters are taken")


def _size(value: Any) -> int:
    """The characters of a single value. Raises `ValueError` where it cannot be stored."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("messages: must not hold a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("messages: must not hold half a surrogate pair") from error
        return len(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("messages: a number is out of range")
    return 0 if isinstance(value, dict | list) else 8
