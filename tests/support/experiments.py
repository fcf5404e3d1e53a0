"""Experiments as their statistics see them, without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from flows.decisions.experiment import ExperimentDecision, decide
from flows.decisions.experiment_facts import Seen, facts_from
from registry.experiment_statistics import AnswerFacts, SharePeriod, Stage, UserSums
from registry.settings_decisions import ExperimentSettings

START = datetime(2026, 1, 17, tzinfo=UTC)
SETTINGS = ExperimentSettings()


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
        answers.append(AnswerFacts(bool(arm), failed, latency, at))
    return Arm(users, answers)


def seen(*arms: Arm, share: float = 0.1, stage: Stage = "trial") -> Seen:
    """Both arms in one period."""
    period = SharePeriod(START, None, share)
    return Seen(
        stage=stage,
        periods=[period],
        all_periods=[period],
        users=[user for arm in arms for user in arm.users],
        answers=sorted((a for arm in arms for a in arm.answers), key=lambda a: a.created_at),
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
