"""What passes between the steps of curation: frames with one row per interaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "id": pl.String,
    "user_id": pl.String,
    "input_text": pl.String,
    "messages": pl.String,
    "structured_prompt": pl.String,
    "corrected_output": pl.String,
    "quality_score": pl.Float64,
    "user_feedback": pl.Int64,
    "target_tool": pl.String,
    "language": pl.String,
    "external_model": pl.String,
    "feedback_at": pl.Datetime("us", "UTC"),
}
"""`messages` is JSON text, null where the interaction was a single structured prompt."""
ACCEPTED, HELD = "accepted", "held"
"""A reviewer's `judgement`: let pass, or still to be seen or rejected; null where there is none."""


@dataclass(frozen=True)
class Outcome:
    """What a step has made of a frame."""

    frame: pl.DataFrame
    """The rows that go on."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """Rows by what was found in them."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Interaction → why a reviewer should see it first."""


class Step(NamedTuple):
    """A step and the name of what it leaves."""

    name: str
    apply: Callable[[pl.DataFrame], pl.DataFrame | Outcome]


def words_of_request() -> pl.Expr:
    """The request as text: the conversation's where there is one."""
    return pl.coalesce(pl.col("messages"), pl.col("input_text"))
