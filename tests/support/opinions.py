"""Feedback of the demo's people, logged as if it had come over the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from benchmarks.demo_world import Rated, use
from flows.context import Context
from registry import interactions
from registry.interactions import Feedback
from training.discriminator import Rating


def ratings(num: int, *, seed: int = 1) -> list[Rating]:
    """What people think of answers, as fitting takes it."""
    return [
        Rating(sample=one.sample, liked=one.liked, user=one.user, at=one.at)
        for one in use(num, seed=seed)
    ]


def log_use(
    context: Context, num: int, *, until: datetime, seed: int = 1, rate: bool = True
) -> list[Rated]:
    """Log `num` answers, a minute apart and the last at `until`; rated ones half a minute on."""
    used = use(num, seed=seed)
    log_rated(context, used, shift=until - used[-1].at, rate=rate)
    return used


def log_rated(
    context: Context, used: Sequence[Rated], *, shift: timedelta, rate: bool = True
) -> None:
    """Log these answers with their ratings, all moved by `shift` in time."""
    rows = [one.interaction(one.at + shift) for one in used]
    with context.database.write() as session:
        interactions.log(session, rows, keyring=context.keyring)
        for one in used if rate else ():
            at = one.at + shift + timedelta(seconds=30)
            feedback = Feedback(
                interaction_id=one.id,
                thumb=1 if one.liked else -1,
                corrected_output=one.correction,
                given_at=at,
            )
            interactions.add_feedback(session, feedback, now=at, new_id=context.new_id)
