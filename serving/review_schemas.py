"""Bodies of the reviewers' routes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, field_validator

from serving.admin_schemas import Reason
from serving.schemas import Body, Stars, Text, Thumb, limit_text

Kind = Literal["quarantine", "injection", "moderation", "informative"]
State = Literal["pending", "accepted", "rejected"]


class ReviewRequest(Body):
    """What a reviewer decides, and says of the answer.

    An accepted answer may be learned from; of an unrated one (kind `informative`) the decision
    is the label too: accepted is a thumb up, rejected a thumb down, unless a score or thumb
    says it more exactly.
    """

    decision: Literal["accepted", "rejected"]
    score: Stars | None = None
    thumb: Thumb | None = None
    feedback_text: Text | None = None
    corrected_output: Text | None = None
    """What the answer should have been; it is learned from like a user's correction."""
    reason: Reason = "reviewed over the API"

    _texts_fit = field_validator("feedback_text", "corrected_output")(limit_text)


class ReviewItemResponse(BaseModel):
    """An interaction that somebody should look at, or has looked at."""

    id: str
    kind: str
    reason: str
    """Why it is here."""
    state: str
    created_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    interaction_id: str
    input_text: str
    model_output: str
    corrected_output: str | None
    feedback_score: int | None
    user_feedback: int | None
    feedback_text: str | None
    quality_score: float | None
    scorer_version: str | None
    target_tool: str | None
    language: str | None
    model_version: str | None


class ReviewQueueResponse(BaseModel):
    """A page of the queue, oldest first."""

    items: Sequence[ReviewItemResponse]
    next: str | None
    """Cursor of the next page; null on the last one."""


class ReviewResponse(BaseModel):
    """What was decided."""

    status: str
    message: str
    id: str
    state: str


class ReasonItem(BaseModel):
    """How far one feature moved the score."""

    feature: str
    value: float
    effect: float
    """In log-odds, of the rule in parts of the score; above 0: it speaks for the answer."""


class ExplanationResponse(BaseModel):
    """Why an answer has the score that it has."""

    interaction_id: str
    stored_score: float | None
    """What was stored when it was given, and by which scorer."""
    stored_scorer_version: str | None
    score: float | None
    """What the scorer of today says; none of a conversation that no scorer can judge."""
    scorer_version: str | None
    reasons: Sequence[ReasonItem]
    """What moved it most, strongest first."""
