"""Usage as people leave it behind: requests with answers, and what was said of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

from flows.context import Context
from registry import interactions, prompts, quality
from registry.interactions import Feedback, Interaction

SECTIONS = ("Role", "Task", "Context", "Tone", "Format", "Constraints")


def log_liked(
    context: Context, number: int, *, at: datetime, start: int = 0, workload: str = "default"
) -> None:
    """Log `number` distinct good answers, each with a score of 5 a minute later."""
    items = [
        replace(_interaction(start + index, at=at), workload=workload) for index in range(number)
    ]
    with context.database.write() as session:
        interactions.log(session, items, keyring=context.keyring)
        for item in items:
            interactions.add_feedback(
                session,
                Feedback(interaction_id=item.id, score=5),
                now=at + timedelta(minutes=1),
                new_id=context.new_id,
            )


def log_trial(
    context: Context,
    experiment_id: str,
    *,
    role: str,
    number: int,
    good: bool,
    at: datetime,
    version: str | None = None,
    workload: str = "default",
) -> None:
    """Log `number` rated answers of one arm, a second apart; good ones are scored 5, others 1."""
    items = [
        Interaction(
            id=f"{experiment_id}-{role}-{index}-{at.timestamp()}",
            created_at=at + timedelta(seconds=index),
            input_text=f"request {index}",
            structured_prompt="",
            model_output="answer",
            workload=workload,
            role=role,
            model_version=version,
            experiment_id=experiment_id,
            quality_score=(0.9 if good else 0.3) + (index % 5) / 100,
            processing_time_ms=100.0 + index % 7,
        )
        for index in range(number)
    ]
    with context.database.write() as session:
        interactions.log(session, items, keyring=context.keyring)
        for item in items:
            interactions.add_feedback(
                session,
                Feedback(interaction_id=item.id, score=5 if good else 1),
                now=item.created_at,
                new_id=context.new_id,
            )


def _interaction(number: int, *, at: datetime) -> Interaction:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    topic, team, *words = (digest[start : start + 8] for start in range(0, 64, 8))
    text = f"write a mail about {topic} to team {team}"
    answer = prompts.render(
        {name: f"{name} of {word}" for name, word in zip(SECTIONS, words, strict=True)}
    )
    return Interaction(
        id=f"liked-{number:06}",
        created_at=at,
        input_text=text,
        structured_prompt=answer,
        model_output=answer,
        external_user_id=f"user-{number % 5}",
        target_tool="email",
        language="en",
        quality_score=quality.score(answer, target_tool="email"),
    )
