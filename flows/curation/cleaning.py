"""What is done with odd rows: one rule for each kind, and a count.

| what | rule |
|---|---|
| a blank request or answer | left out |
| a conversation that is none | left out |
| text beyond `max_chars` | left out |
| control and direction characters | removed |
| bytes and surrogates that are no Unicode | kept as U+FFFD, counted |
| a word of several scripts | kept; moderation reads through it |
| a quality score that is no number in [0, 1] | taken for none |
| feedback from the future | kept; the watermark never passes the present |
| an answer of a model that is no version here | kept |
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

import polars as pl

from flows.curation.frames import Outcome
from registry.settings_curation import CurationSettings

TEXTS = ("input_text", "messages", "structured_prompt", "corrected_output")
CONTROLS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]"
"""Not the joiners (U+200C, U+200D): Persian and emoji need them."""
_ESCAPED_CONTROLS = r"\\u00(?:0[0-8bcef]|1[0-9a-f]|7f)"
_MIXED = r"[a-zA-Z][\u0370-\u03ff\u0400-\u04ff]|[\u0370-\u03ff\u0400-\u04ff][a-zA-Z]"


def clean(settings: CurationSettings, *, now: datetime) -> Callable[[pl.DataFrame], Outcome]:
    """The step that applies the rules; `notes` counts the rows of each."""

    def step(frame: pl.DataFrame) -> Outcome:
        frame = frame.with_columns(
            is_blank=~_filled("input_text")
            | ~(_filled("corrected_output") | _filled("structured_prompt")),
            is_broken=~pl.col("messages")
            .map_elements(_is_conversation, return_dtype=pl.Boolean)
            .fill_null(True),
            is_long=pl.max_horizontal(pl.col(name).str.len_bytes().fill_null(0) for name in TEXTS)
            > settings.max_chars,
            has_controls=_any(TEXTS, f"{CONTROLS}")
            | pl.col("messages").str.contains(_ESCAPED_CONTROLS).fill_null(False),
            is_unreadable=_any(TEXTS, "\ufffd"),
            is_mixed=_any(TEXTS, _MIXED),
            has_odd_score=pl.col("quality_score").is_not_null() & ~_is_share("quality_score"),
            is_early=pl.col("feedback_at") > now,
            is_foreign=pl.col("external_model").is_not_null(),
        )
        kept = frame.filter(~pl.col("is_blank"), ~pl.col("is_broken"), ~pl.col("is_long"))
        return Outcome(_repaired(kept), _notes(frame))

    return step


_NOTES = {
    "is_blank": "blank request or answer",
    "is_broken": "conversation that cannot be read",
    "is_long": "text too long",
    "has_controls": "control characters removed",
    "is_unreadable": "text that was no Unicode",
    "is_mixed": "words of mixed scripts",
    "has_odd_score": "quality score that is no share",
    "is_early": "feedback from the future",
    "is_foreign": "model that is no version here",
}


def _notes(frame: pl.DataFrame) -> dict[str, int]:
    counts = frame.select(pl.col(name).sum() for name in _NOTES).row(0, named=True)
    return {_NOTES[name]: int(count or 0) for name, count in counts.items()}


def _repaired(frame: pl.DataFrame) -> pl.DataFrame:
    frame = frame.with_columns(
        quality_score=pl.when(_is_share("quality_score")).then(pl.col("quality_score"))
    )
    odd = frame["has_controls"]
    if odd.any():
        plain = pl.col("messages").str.replace_all(_ESCAPED_CONTROLS, "")
        frame = frame.with_columns(
            *(
                pl.when("has_controls").then(_without_controls(name)).otherwise(pl.col(name))
                for name in TEXTS
                if name != "messages"
            ),
            pl.when("has_controls")
            .then(plain.str.replace_all(CONTROLS, ""))
            .otherwise(pl.col("messages")),
        ).filter(_filled("input_text"), _filled("corrected_output") | _filled("structured_prompt"))
    return frame.drop(_NOTES)


def _without_controls(name: str) -> pl.Expr:
    return pl.col(name).str.replace_all(CONTROLS, "")


def _filled(name: str) -> pl.Expr:
    visible = pl.col(name).str.replace_all(CONTROLS, "").str.strip_chars()
    return visible.str.len_bytes().fill_null(0) > 0


def _any(names: tuple[str, ...], pattern: str) -> pl.Expr:
    return pl.any_horizontal(pl.col(name).str.contains(pattern).fill_null(False) for name in names)


def _is_share(name: str) -> pl.Expr:
    return pl.col(name).is_between(0.0, 1.0) & pl.col(name).is_not_nan()


def _is_conversation(text: str) -> bool:
    """Whether `text` is a list of turns, each with a role, and somebody said something."""
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(turns, list)
        and bool(turns)
        and all(isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in turns)
    )
