"""Simulates whole experiments, thousands at once: one array element per experiment.

All experiments of a world share the moments at which someone asks; who asks, what comes
of it and what is decided is each one's own. The statistics are the product's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.decision_worlds import World
from flows.decisions import comparison as arms
from flows.decisions.comparison import Moments
from flows.decisions.guardrails import RANK_STAKES, RATE_MEMORY, TAIL, TAIL_STAKES
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


@dataclass
class Watch:
    """The guardrails of all experiments."""

    num: int
    num_reference: int = 100
    tolerance: float = 1.25
    hits: Array = field(init=False)
    nums: Array = field(init=False)
    seen: Array = field(init=False)
    error_paths: Array = field(init=False)
    latency_paths: Array = field(init=False)
    window: Array = field(init=False)
    num_control: Indexes = field(init=False)

    def __post_init__(self) -> None:
        self.hits, self.nums = np.zeros((self.num, 2)), np.zeros((self.num, 2))
        self.seen = np.tile([0.5, 25.0], (self.num, 1))
        self.error_paths = np.zeros((len(ODDS_RATIOS), self.num))
        self.latency_paths = np.zeros((len(RANK_STAKES) + len(TAIL_STAKES), self.num))
        self.window = np.full((self.num, self.num_reference), np.inf)
        self.num_control = np.zeros(self.num, dtype=np.int64)

    def see(self, answers: Answers) -> None:
        """One answer in each experiment."""
        self._errors(answers)
        self._latency(answers)

    def _errors(self, answers: Answers) -> None:
        run, arm = np.arange(self.num), answers.treated.astype(np.int64)
        self.nums[run, arm] += 1
        self.hits[run, arm] += answers.failed
        done: Flags = np.minimum(*self.nums.T) > 0
        if not done.any():
            return
        rate = np.clip(self.seen[:, 0] / self.seen[:, 1], 0.002, 0.9)
        (h0, h1), (n0, n1) = self.hits.T, self.nums.T
        for path, odds in zip(self.error_paths, ODDS_RATIOS, strict=True):
            path += np.where(done, two_rates_log_e(h1, n1, h0, n0, rate=rate, odds=odds), 0)
        keep = np.exp(-n0 / RATE_MEMORY)[:, None]
        now = self.seen * keep + np.stack([h0, n0], axis=1)
        self.seen = np.where(done[:, None], now, self.seen)
        self.hits[done] = 0
        self.nums[done] = 0

    def _latency(self, answers: Answers) -> None:
        judged = answers.treated & ~answers.failed & (self.num_control >= self.num_reference)
        if judged.any():
            over = answers.latency[judged, None] > self.tolerance * self.window[judged]
            ranks = over.mean(axis=1)
            tail = (ranks >= 1 - TAIL).astype(float)
            bets = [bet_log_e(ranks, mean=0.5, stake=s) for s in RANK_STAKES]
            bets += [bet_log_e(tail, mean=TAIL, stake=s) for s in TAIL_STAKES]
            self.latency_paths[:, judged] += np.stack(bets)
        control = np.flatnonzero(~answers.treated & ~answers.failed)
        self.window[control, self.num_control[control] % self.num_reference] = answers.latency[
            control
        ]
        self.num_control[control] += 1

    def log_es(self) -> tuple[Array, Array]:
        """Of errors and of latency, now."""
        return mixed(list(self.error_paths)), mixed(list(self.latency_paths))


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
