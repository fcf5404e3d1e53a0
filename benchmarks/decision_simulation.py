"""Simulates whole experiments, thousands at once: one array element per experiment.

All experiments of a world share the moments at which someone asks; who asks, what comes
of it and what is decided is each one's own. The statistics are the product's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.decision_worlds import World
from flows.decisions import comparison as arms
from flows.decisions.comparison import Moments
from flows.decisions.guardrails import RANK_STAKES, RATE_MEMORY, TAIL_STAKES
from flows.decisions.sequential import ODDS_RATIOS, Array, bet_log_e, mixed, two_rates_log_e

LOOKS_PER_HOUR = 4
Flags = npt.NDArray[np.bool_]
Indexes = npt.NDArray[np.int64]


@dataclass
class People:
    """The users of each experiment: (experiments, users)."""

    weights: Array
    position: Array
    taste: Array
    slowness: Array
    zeal: Array
    """How likely each is to rate."""

    @classmethod
    def draw(cls, world: World, num: int, rng: np.random.Generator) -> People:
        """Of `num` experiments."""
        shape = (num, world.num_users)
        weights = 1 / np.arange(1, world.num_users + 1) ** world.heaviness
        rate = world.rating_rate
        zeal = np.full(shape, rate) if rate == 1 else rng.beta(2 * rate, 2 * (1 - rate), shape)
        return cls(
            weights=np.cumsum(weights) / weights.sum(),
            position=rng.random(shape),
            taste=rng.normal(0, 1, shape),
            slowness=rng.normal(0, world.latency_spread, shape),
            zeal=zeal,
        )


@dataclass
class Answers:
    """One answer in each experiment."""

    user: Indexes
    treated: Flags
    failed: Flags
    quality: Array
    positive: Flags
    negative: Flags
    rated: Flags
    latency: Array


def ask(
    world: World,
    people: People,
    hour: float,
    share: Array,
    rng: np.random.Generator,
) -> Answers:
    """Someone asks, in every experiment, at `hour`; the challenger has `share` of the people."""
    num = len(people.position)
    run = np.arange(num)
    user = np.searchsorted(people.weights, rng.random(num))
    treated = people.position[run, user] < share
    broken = world.is_bad and hour >= world.breaks_at
    lift = world.lift if not broken else (world.broken_lift or world.lift)
    lift += world.novelty * math.exp(-hour / 24)
    gain = 1 + lift * treated
    noise = rng.normal(0, 1, num)
    taste = people.taste[run, user]
    quality = world.quality * gain + world.quality_sd * noise + 0.03 * taste
    base = np.clip((world.positive + world.drift * hour / 168) * gain, 0.02, 0.98)
    logit = np.log(base / (1 - base)) + world.user_spread * taste + 0.5 * noise
    positive = rng.random(num) < 1 / (1 + np.exp(-logit))
    negative = ~positive & (rng.random(num) < 0.8)
    error = world.error_rate + (world.outage if 60 <= hour < 70 else 0)
    failed = rng.random(num) < error + (world.extra_errors * treated if broken else 0)
    zeal = people.zeal[run, user] * np.where(negative, 1 + world.grumpiness, 1)
    load = world.load * math.sin(2 * math.pi * (hour - 6) / 24)
    latency = np.exp(
        world.latency_sigma * rng.normal(0, 1, num) + load + people.slowness[run, user]
    )
    if broken:
        latency = latency * np.where(treated, world.latency_factor, 1)
    return Answers(
        user=user,
        treated=treated,
        failed=failed,
        quality=np.clip(quality, 0, 1),
        positive=positive,
        negative=negative,
        rated=~failed & (rng.random(num) < zeal),
        latency=latency,
    )


def arrivals(world: World, rng: np.random.Generator) -> Indexes:
    """How many ask between two looks, with the rhythm of day and week."""
    hours = np.arange(world.days * 24 * LOOKS_PER_HOUR) / LOOKS_PER_HOUR
    day = 1 + world.rhythm * np.sin(2 * math.pi * (hours - 9) / 24)
    week = np.where((hours // 24) % 7 >= 5, 1 - world.rhythm / 2, 1)
    rate = day * week
    found: Indexes = rng.poisson(world.per_day / 24 / LOOKS_PER_HOUR * rate / rate.mean())
    return found


class PeopleSums:
    """Users' sums and their cross moments, updated answer by answer."""

    def __init__(self, num: int, num_users: int, num_periods: int) -> None:
        self._shape = (num_periods, 2, arms.NUM_SUMS)
        size = math.prod(self._shape)
        self._run = np.arange(num)
        self._own = np.zeros((num, num_users, size))
        self._half = np.zeros((num, size, size))
        self._totals = np.zeros((num, size))

    def add(self, user: Indexes, period: Indexes, treated: Flags, sums: Array) -> None:
        """`sums` (experiments, NUM_SUMS) of one answer."""
        run, arm = self._run, treated.astype(np.int64)
        slots = ((period * 2 + arm) * arms.NUM_SUMS)[:, None] + np.arange(arms.NUM_SUMS)
        own = self._own[run, user]
        np.put_along_axis(own, slots, np.take_along_axis(own, slots, 1) + sums / 2, 1)
        # Σ inc ⊗ (old + inc / 2), plus its transpose, is the change of Σ own ⊗ own.
        self._half[run[:, None], slots] += sums[:, :, None] * own[:, None, :]
        np.put_along_axis(own, slots, np.take_along_axis(own, slots, 1) + sums / 2, 1)
        self._own[run, user] = own
        self._totals[run[:, None], slots] += sums

    def clear(self) -> None:
        """Forget everything."""
        for sums in (self._own, self._half, self._totals):
            sums[:] = 0

    def moments(self) -> Moments:
        """As the product's comparison takes them."""
        totals = self._totals.reshape(len(self._run), *self._shape)
        return Moments(totals, self._half + self._half.swapaxes(1, 2))


BUFFER = 32
"""More answers of one arm without one of the other than this are forgotten."""


class Watch:
    """The guardrails of all experiments, answer by answer."""

    def __init__(self, num: int, num_reference: int, tolerance: float) -> None:
        self._run = np.arange(num)
        self._hits, self._nums = np.zeros((num, 2)), np.zeros((num, 2))
        self._seen = np.tile([0.5, 25.0], (num, 1))
        self._errors = np.zeros((len(ODDS_RATIOS), num))
        self._ranks = Run(num, 1, tolerance)
        self._tails = Run(num, num_reference, tolerance)
        self._num_reference = num_reference
        self._bets = np.zeros((len(RANK_STAKES) + len(TAIL_STAKES), num))
        self._largest = np.zeros(num)
        self._worst = np.zeros(num)

    def see(self, answers: Answers) -> None:
        """One answer in each experiment."""
        self._see_errors(answers)
        self._see_latency(answers)

    def log_es(self) -> tuple[Array, Array]:
        """The highest so far, of errors and of latency."""
        return self._worst, self._largest - np.log(len(self._bets))

    def _see_errors(self, answers: Answers) -> None:
        run, arm = self._run, answers.treated.astype(np.int64)
        self._nums[run, arm] += 1
        self._hits[run, arm] += answers.failed
        done: Flags = np.minimum(*self._nums.T) > 0
        if not done.any():
            return
        rate = np.clip(self._seen[:, 0] / self._seen[:, 1], 0.002, 0.9)
        (h0, h1), (n0, n1) = self._hits.T, self._nums.T
        for path, odds in zip(self._errors, ODDS_RATIOS, strict=True):
            path += np.where(done, two_rates_log_e(h1, n1, h0, n0, rate=rate, odds=odds), 0)
        self._worst = np.maximum(self._worst, mixed(list(self._errors)))
        keep = np.exp(-n0 / RATE_MEMORY)[:, None]
        now = self._seen * keep + np.stack([h0, n0], axis=1)
        self._seen = np.where(done[:, None], now, self._seen)
        self._hits[done] = 0
        self._nums[done] = 0

    def _see_latency(self, answers: Answers) -> None:
        ranks, done = self._ranks.see(answers)
        tails, all_done = self._tails.see(answers)
        bets = [np.where(done, bet_log_e(ranks, mean=0.5, stake=stake), 0) for stake in RANK_STAKES]
        mean = 1 / (self._num_reference + 1)
        bets += [
            np.where(all_done, bet_log_e(tails, mean=mean, stake=stake), 0) for stake in TAIL_STAKES
        ]
        self._bets += np.stack(bets)
        self._largest = np.maximum(self._largest, self._bets.max(axis=0))


class Run:
    """Answers since the last block: as `guardrails.latency` forms them, in all experiments."""

    def __init__(self, num: int, num_control: int, tolerance: float) -> None:
        self._num_control, self._tolerance = num_control, tolerance
        self._mine = np.full((num, BUFFER), np.nan)
        self._others = np.full((num, BUFFER), np.nan)
        self._nums = np.zeros((num, 2), dtype=np.int64)

    def see(self, answers: Answers) -> tuple[Array, Flags]:
        """One answer in each; the share of slow comparisons, and where a block is complete."""
        for treated, buffer in ((False, self._others), (True, self._mine)):
            which = np.flatnonzero(~answers.failed & (answers.treated == treated))
            place = self._nums[which, int(treated)]
            buffer[which, place % BUFFER] = answers.latency[which]
            self._nums[which, int(treated)] += 1
        done = (self._nums[:, 0] >= self._num_control) & (self._nums[:, 1] >= 1)
        slow = np.zeros(len(done))
        which = np.flatnonzero(done)
        if len(which):
            slow[which] = self._slow(which)
            self._mine[which] = self._others[which] = np.nan
            self._nums[which] = 0
        return slow, done

    def _slow(self, which: Indexes) -> Array:
        """Of a run that ends with the first of both arms, one arm has a single answer."""
        mine, others = self._mine[which], self._others[which]
        if self._num_control > 1:
            others = np.nanmax(others[:, : self._num_control], axis=1, keepdims=True)
        else:
            alone = (self._nums[which, 0] == 1)[:, None]
            mine = np.where(alone, mine, mine[:, :1])
            others = np.where(alone, others[:, :1], others)
        known = ~np.isnan(mine) & ~np.isnan(others)
        over = (mine > self._tolerance * others) & known
        found: Array = over.sum(axis=1) / known.sum(axis=1)
        return found


def rating_sums(answers: Answers) -> Array:
    """What a rating adds to a user's sums."""
    sums = np.zeros((len(answers.user), arms.NUM_SUMS))
    for name, values in (
        (arms.RATED, answers.rated),
        (arms.POSITIVE, answers.rated & answers.positive),
        (arms.NEGATIVE, answers.rated & answers.negative),
        (arms.RATED_SCORED, answers.rated),
        (arms.RATED_QUALITY, answers.rated * answers.quality),
    ):
        sums[:, name] = values
    return sums


def answer_sums(answers: Answers) -> Array:
    """What an answer adds to a user's sums before anyone rates it."""
    sums = np.zeros((len(answers.user), arms.NUM_SUMS))
    sums[:, arms.SCORED] = ~answers.failed
    sums[:, arms.QUALITY] = ~answers.failed * answers.quality
    return sums


Pending = defaultdict[int, list[tuple[Answers, Indexes]]]
"""Ratings on their way: look → answers with the period they were given in."""
