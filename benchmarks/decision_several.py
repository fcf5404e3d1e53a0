"""Several challengers at once, simulated: does a wrong one win, and how soon the right one?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.decision_rules import PROMOTED, RETIRED, UNDECIDED, Ours
from benchmarks.decision_simulation import (
    LOOKS_PER_HOUR,
    Flags,
    Indexes,
    People,
    arrivals,
    ask,
)
from benchmarks.decision_worlds import SAME, World
from benchmarks.results import Figure
from flows.decisions.sequential import Array
from flows.decisions.several import for_each
from registry.settings_decisions import ExperimentSettings

MOST_FALSE = 0.01


@dataclass(frozen=True)
class Crowd:
    """A world with several challengers, each with its own lift."""

    name: str
    lifts: tuple[float, ...]
    world: World = SAME


CROWDS = (
    Crowd("3 challengers, none better", (0.0, 0.0, 0.0)),
    Crowd(
        "3 challengers, none better, heavy users",
        (0.0, 0.0, 0.0),
        replace(SAME, heaviness=1.0, user_spread=1.0),
    ),
    Crowd("3 challengers, one 10% better", (0.0, 0.1, 0.0)),
    Crowd("3 challengers, one 10% better, one 10% worse", (-0.1, 0.1, 0.0)),
)


def figures(num: int, settings: ExperimentSettings, crowd: Crowd) -> list[Figure]:
    """Simulate `num` trials of a crowd."""
    winner, hours = play(crowd, num, 1, settings)
    lifts = np.array([*crowd.lifts, 0.0])
    wrong = float(((winner >= 0) & (lifts[winner] <= 0)).mean())
    found = [
        Figure(
            f"{crowd.name}: a wrong one promoted",
            wrong,
            "share",
            goal=f"≤ {MOST_FALSE:g}",
            holds=wrong <= MOST_FALSE,
        )
    ]
    if max(crowd.lifts) > 0:
        right = (winner >= 0) & (lifts[winner] > 0)
        median = float(np.median(hours[right])) if right.any() else math.inf
        found += [
            Figure(f"{crowd.name}: the right one promoted", float(right.mean()), "share"),
            Figure(f"{crowd.name}: median hours", median, "h"),
        ]
    return found


def play(crowd: Crowd, num: int, seed: int, settings: ExperimentSettings) -> tuple[Indexes, Array]:
    """Who won each of `num` trials (-1: nobody), and when they ended."""
    rng = np.random.default_rng(seed)
    size = len(crowd.lifts)
    # The split of people is tested by the product on each one's part of the share.
    own = for_each(settings, size).model_copy(update={"split_alpha": 1e-300})
    pairs = [Ours(crowd.world, num, own) for _ in crowd.lifts]
    people = People.draw(crowd.world, num, rng)
    rank = rng.random((num, crowd.world.num_users, size))
    run = np.arange(num)
    for number, count in enumerate(arrivals(crowd.world, rng)):
        open_pairs = np.stack([pair.outcome.action == UNDECIDED for pair in pairs], axis=1)
        if not open_pairs.any():
            break
        step = np.max(
            [pair.step * is_open for pair, is_open in zip(pairs, open_pairs.T, strict=True)], axis=0
        )
        for pair in pairs:
            pair.step = step.copy()
        chosen = np.argmax(np.where(open_pairs[:, None, :], rank, -1), axis=2)
        lift = np.array(crowd.lifts)[chosen]
        for _ in range(count):
            late = round(rng.exponential(crowd.world.rating_delay) * LOOKS_PER_HOUR)
            hour = number / LOOKS_PER_HOUR
            answers = ask(crowd.world, people, hour, pairs[0].shares[step], rng, lift=lift)
            given = chosen[run, answers.user]
            for place, pair in enumerate(pairs):
                pair.answered(
                    replace(answers, compared=~answers.treated | (given == place)),
                    number,
                    number + late,
                )
        for pair in pairs:
            pair.look(number)
        _end(pairs, (number + 1) / LOOKS_PER_HOUR)
    return _winners(pairs)


def _end(pairs: list[Ours], hour: float) -> None:
    """Where one has won, the others are out."""
    won: Flags = np.any([pair.outcome.action == PROMOTED for pair in pairs], axis=0)
    for pair in pairs:
        pair.outcome.decide(won, RETIRED, hour)


def _winners(pairs: list[Ours]) -> tuple[Indexes, Array]:
    promoted = np.stack([pair.outcome.action == PROMOTED for pair in pairs], axis=1)
    hours = np.stack([pair.outcome.hours for pair in pairs], axis=1)
    first = np.where(promoted, hours, math.inf).argmin(axis=1)
    winner = np.where(promoted.any(axis=1), first, -1)
    return winner, np.where(winner >= 0, hours[np.arange(len(hours)), first], hours.max(axis=1))
