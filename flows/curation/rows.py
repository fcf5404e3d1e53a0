"""The steps that look at one row at a time: pure, so that they run on any partition anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from flows.curation import classifying, cleaning, moderation, steps
from flows.curation.frames import ACCEPTED, HELD, Outcome, Step
from flows.curation.pii import scrubbing
from flows.curation.plugins import load_function
from flows.curation.signatures import request_text, sign_pairs
from registry.settings_curation import CurationSettings

READ, HASHED = "with feedback", "not held for a reviewer"
EXTRA_STEPS: tuple[Step, ...] = ()
"""Further steps between feedback and scrubbing; each gives the rows that go on."""
QUALITY_BINS = 20
SAMPLED_EVERY = 10
EXAMPLE_CHARS = 160


@dataclass
class Tally:
    """Counts of a pass; those of its parts can be added."""

    left: Counter[str] = field(default_factory=Counter)
    """Rows after each step, by its name."""
    notes: Counter[str] = field(default_factory=Counter)
    quality: Counter[int] = field(default_factory=Counter)
    """Rows by twentieth of the quality score."""
    domains: Counter[str] = field(default_factory=Counter)
    """Of every tenth row."""
    languages: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Scrubbed beginnings of what did not pass a step, by its name."""

    def add(self, other: Tally, *, max_examples: int) -> None:
        """Count what the other has counted."""
        for name in ("left", "notes", "quality", "domains", "languages"):
            getattr(self, name).update(getattr(other, name))
        for reason, texts in other.examples.items():
            shown = self.examples.setdefault(reason, [])
            shown += texts[: max_examples - len(shown)]


@dataclass(frozen=True)
class Page:
    """What the row steps have made of one frame."""

    frame: pl.DataFrame
    held: Mapping[str, str]
    tally: Tally
    seen: Sequence[str]


@dataclass(frozen=True)
class RowSteps:
    """All row steps with what they need; can be sent to another process."""

    settings: CurationSettings
    now: datetime
    is_bad: Callable[[pl.Series], pl.Series] | None = None

    def __call__(self, frame: pl.DataFrame) -> Page:
        """Apply them to a frame with the columns of `frames.SCHEMA` and `judgement`."""
        tally = Tally()
        tally.left[READ] = frame.height
        _describe(frame, tally)
        seen = frame["id"].to_list()
        held: dict[str, str] = {}
        judged = {
            judgement: frame.filter(pl.col("judgement") == judgement)["id"].to_list()
            for judgement in (ACCEPTED, HELD)
        }
        frame = frame.drop("judgement")
        for step in self._steps(accepted=judged[ACCEPTED], held=judged[HELD]):
            found = step.apply(frame)
            outcome = found if isinstance(found, Outcome) else Outcome(found)
            self._show(frame, outcome.frame, step.name, tally)
            frame = outcome.frame
            tally.left[step.name] = frame.height
            tally.notes.update(outcome.notes)
            held |= dict(outcome.held)
        return Page(self._finished(frame), held, tally, seen)

    def _steps(self, *, accepted: Sequence[str], held: Sequence[str]) -> tuple[Step, ...]:
        settings = self.settings
        name_finder = load_function(settings.pii.name_finder, "curation.pii.name_finder")
        return (
            Step("not refused by a reviewer", steps.drop_interactions(held)),
            Step("readable", cleaning.clean(settings, now=self.now)),
            Step("with something to learn", steps.with_target),
            Step("of enough quality", steps.filter_quality(settings)),
            Step("liked or corrected", steps.filter_feedback(settings)),
            *EXTRA_STEPS,
            Step("scrubbed", scrubbing.scrub(settings.pii, name_finder=name_finder)),
            Step(
                HASHED,
                moderation.moderate(settings.moderation, accepted=accepted, is_bad=self.is_bad),
            ),
        )

    def _finished(self, frame: pl.DataFrame) -> pl.DataFrame:
        frame = classifying.classify(frame)
        other = load_function(self.settings.classifier, "curation.classifier")
        if other is not None:
            frame = other(frame)
        frame = classifying.with_templates(steps.with_hashes(frame))
        asked = pl.Series(requests(frame), dtype=pl.String)
        least = self.settings.near_duplicates.min_words
        request_signature, signature = sign_pairs(asked, frame["target"], min_words=least)
        return frame.drop("structured_prompt", "corrected_output", "user_feedback").with_columns(
            signature=signature, request_signature=request_signature
        )

    def _show(self, before: pl.DataFrame, after: pl.DataFrame, name: str, tally: Tally) -> None:
        """Keep a few of the rows that did not pass."""
        wanted = self.settings.report_examples
        if before.height == after.height or not wanted:
            return
        gone = before.join(after.select("id"), on="id", how="anti", maintain_order="left")
        tally.examples[name] = examples(gone.head(wanted), self.settings)


def requests(frame: pl.DataFrame) -> list[str]:
    """What was asked, row by row."""
    return [request_text(*row) for row in frame.select("messages", "input_text").iter_rows()]


def examples(frame: pl.DataFrame, settings: CurationSettings) -> list[str]:
    """The beginnings of requests, scrubbed."""
    scrubber = scrubbing.Scrubber(settings.pii)
    texts = (text or "" for text in frame["input_text"])
    return [scrubber.text(text[: 4 * EXAMPLE_CHARS])[:EXAMPLE_CHARS] for text in texts]


def describe(frame: pl.DataFrame, tally: Tally) -> None:
    """Count the quality, domains and languages of curated rows."""
    _count_quality(frame, tally)
    tally.domains.update(frame["domain"])
    tally.languages.update(name or "unknown" for name in frame["spoken"])


def _describe(frame: pl.DataFrame, tally: Tally) -> None:
    _count_quality(frame, tally)
    some = classifying.classify(frame.gather_every(SAMPLED_EVERY))
    tally.domains.update(some["domain"])
    tally.languages.update(name or "unknown" for name in some["spoken"])


def _count_quality(frame: pl.DataFrame, tally: Tally) -> None:
    scores = frame["quality_score"].drop_nulls().drop_nans().clip(0.0, 1.0)
    bins = (scores * QUALITY_BINS).floor().clip(0, QUALITY_BINS - 1).cast(pl.Int64)
    tally.quality.update(bins)
