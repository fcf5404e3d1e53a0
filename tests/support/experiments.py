"""Experiments as their statistics see them, without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from flows.decisions.experiment import ExperimentDecision, decide
from flows.decisions.experiment_facts import Seen, facts_from
from registry.experiment_statistics import ANSWERS, USER_SUMS, SharePeriod, Stage
from registry.settings_decisions import ExperimentSettings
from registry.trial_rows import PRIORS, number_of

START = datetime(2026, 1, 17, tzinfo=UTC)
SETTINGS = ExperimentSettings()


@dataclass(frozen=True)
class UserSums:
    """A row of `USER_SUMS`."""

    unit: str
    period: int
    arm: int
    scored: int
    quality: float
    rated: int
    positive: int
    negative: int
    rated_scored: int
    rated_quality: float


@dataclass(frozen=True)
class AnswerFacts:
    """A row of `ANSWERS`."""

    is_treatment: bool
    failed: bool
    latency_ms: float | None
    created_at: datetime
    unit: int


@dataclass(frozen=True)
class Arm:
    """What the people of one arm were answered, and said of it."""

    users: Sequence[UserSums]
    answers: Sequence[AnswerFacts]


def people(
    arm: int,
    num: int,
    *,
    good: float,
    seed: int = 0,
    latency_ms: float = 100,
    errors: float = 0,
    rated: bool = True,
) -> Arm:
    """`num` people with one answer each, a minute apart; a share of `good` likes theirs."""
    rng = np.random.default_rng([seed, arm])
    users, answers = [], []
    for index, liked in enumerate((rng.random(num) < good).tolist()):
        failed = bool(rng.random() < errors)
        quality = 0.9 if liked else 0.7
        counts = int(not failed and rated)
        users.append(
            UserSums(
                unit=f"{arm}-{index}",
                period=0,
                arm=arm,
                scored=int(not failed),
                quality=quality * (not failed),
                rated=counts,
                positive=counts * int(liked),
                negative=counts * int(not liked),
                rated_scored=counts,
                rated_quality=counts * quality,
            )
        )
        latency = None if failed else latency_ms * float(rng.uniform(0.8, 1.2))
        at = START + timedelta(minutes=index, seconds=arm)
        answers.append(AnswerFacts(bool(arm), failed, latency, at, number_of(f"{arm}-{index}")))
    return Arm(users, answers)


def seen(*arms: Arm, share: float = 0.1, stage: Stage = "trial") -> Seen:
    """Both arms in one period."""
    period = SharePeriod(START, None, share)
    return Seen(
        stage=stage,
        periods=[period],
        all_periods=[period],
        users=pl.DataFrame(
            [asdict(user) | {"unit": number_of(user.unit)} for arm in arms for user in arm.users],
            schema=USER_SUMS,
        ),
        answers=pl.DataFrame(
            [asdict(answer) for arm in arms for answer in arm.answers], schema=ANSWERS
        ).sort("created_at"),
        priors=PRIORS.to_frame(),
    )


def look(
    *arms: Arm,
    hours: float = 49,
    share: float = 0.1,
    settings: ExperimentSettings = SETTINGS,
    stage: Stage = "trial",
) -> ExperimentDecision:
    """The decision on these people after `hours`."""
    facts = facts_from(
        seen(*arms, share=share, stage=stage),
        settings=settings,
        now=START + timedelta(hours=hours),
    )
    return decide(facts, settings)
