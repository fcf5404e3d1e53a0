"""Looks over what people said lately, and holds back what somebody should see first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import polars as pl

from flows.curation import trust
from registry import prompts, review
from registry.clock import Clock, NewId
from registry.crypto import Keyring
from registry.db import Database
from registry.ratings import Answered, Event, rated
from registry.settings_signals import SignalSettings


@dataclass(frozen=True)
class WatchReport:
    """What came of one look."""

    num_events: int
    num_raters: int
    num_distrusted: int
    """Raters whose opinions are held back."""
    held: Mapping[str, int]
    """New items in the reviewers' queue, by kind."""


def watch(
    database: Database,
    *,
    workload: str,
    settings: SignalSettings,
    keyring: Keyring,
    clock: Clock,
    new_id: NewId,
) -> WatchReport:
    """Quarantine suspicious feedback and flag injections. A second look finds nothing new."""
    with database.read() as session:
        answers, said = rated(
            session, keyring, workload=workload, limit=settings.scorer.max_ratings
        )
    events = events_frame(answers, said)
    frame = trust.flag_injection(samples_frame(answers, said))
    weights = trust.rater_weights(events, settings.trust)
    _, held = trust.quarantine(frame, events, settings.trust)
    flagged = frame.filter(pl.col("injection"))
    found = {
        review.QUARANTINE: dict(held.select("id", "reason").iter_rows()),
        review.INJECTION: dict.fromkeys(flagged["id"], "the text gives orders to a model"),
    }
    with database.write() as session:
        num_new = {
            kind: review.add(
                session, workload=workload, kind=kind, reasons=reasons, now=clock(), new_id=new_id
            )
            for kind, reasons in found.items()
        }
    distrusted = weights.filter(pl.col("rater_weight") < settings.trust.min_weight)
    return WatchReport(events.height, weights.height, distrusted.height, num_new)


def events_frame(answers: Mapping[str, Answered], said: Sequence[Event]) -> pl.DataFrame:
    """The feedback as `trust` takes it."""
    records = [
        {
            **asdict(event),
            "quality_score": answers[event.interaction_id].quality_score,
            "target_tool": prompts.nearest_tool(answers[event.interaction_id].sample.target_tool),
            "text": _storable(event.text),
            "corrected_output": _storable(event.corrected_output),
        }
        for event in said
    ]
    return pl.DataFrame(records, schema=trust.EVENTS)


def samples_frame(answers: Mapping[str, Answered], said: Sequence[Event]) -> pl.DataFrame:
    """What would be learned from each answer: its last correction, or itself where it is liked.

    Answers that nobody likes or corrects teach nothing, and are left out.
    """
    liked = {event.interaction_id for event in said if event.thumb == 1}
    corrections = {
        event.interaction_id: event.corrected_output for event in said if event.corrected_output
    }
    records = []
    for key, answer in answers.items():
        correction = corrections.get(key)
        if correction is None and key not in liked:
            continue
        records.append(
            {
                "id": key,
                "input_text": _storable(answer.sample.text),
                "target": _storable(answer.sample.output if correction is None else correction),
                "source": "accepted" if correction is None else "corrected",
                "target_tool": answer.sample.target_tool,
                "language": answer.sample.language,
            }
        )
    return pl.DataFrame(records, schema=trust.SAMPLES)


def _storable(text: str | None) -> str | None:
    """Text that UTF-8 can hold."""
    return None if text is None else text.encode("utf-8", "replace").decode()
