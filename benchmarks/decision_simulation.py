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
from flows.decisions.comparison import Moments, prior
from flows.decisions.guardrails import LEANING, RATE_MEMORY, above_others, is_hopeless
from flows.decisions.people import Units, people_log_e
from flows.decisions.ranks import BETS, normal_scores, rank_log_es
from flows.decisions.sequential import (
    ODDS_RATIOS,
    Array,
    Restarted,
    mixed,
    two_rates_log_e,
)
from registry.settings_decisions import ExperimentSettings

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
    faulty: Flags
    zeal: Array
    """How likely each is to rate."""
    prior: Array
    """What each one's answers of the weeks before came to; see `comparison.prior`."""

    @classmethod
    def draw(cls, world: World, num: int, rng: np.random.Generator) -> People:
        """Of `num` experiments."""
        shape = (num, world.num_users)
        weights = 1 / np.arange(1, world.num_users + 1) ** world.heaviness
        rate = world.rating_rate
        zeal = np.full(shape, rate) if rate == 1 else rng.beta(2 * rate, 2 * (1 - rate), shape)
        taste = rng.normal(0, 1, shape)
        return cls(
            weights=np.cumsum(weights) / weights.sum(),
            position=rng.random(shape),
            taste=taste,
            slowness=rng.normal(0, world.latency_spread, shape),
            faulty=_faulty(world, shape, rng),
            zeal=zeal,
            prior=_prior(world, weights / weights.sum(), taste, zeal, rng),
        )


def _faulty(world: World, shape: tuple[int, int], rng: np.random.Generator) -> Flags:
    """Draws nothing where there are none: worlds of before stay what they were."""
    if not world.faulty_users:
        return np.zeros(shape, dtype=bool)
    return rng.random(shape) < world.faulty_users


def _prior(
    world: World, weights: Array, taste: Array, zeal: Array, rng: np.random.Generator
) -> Array:
    """From answers of the champion in the four weeks before; newcomers have none."""
    known = rng.random(taste.shape) >= world.newcomers
    num = rng.poisson(28 * world.per_day * weights, taste.shape) * known
    rated = rng.binomial(num, zeal)
    logit = math.log(world.positive / (1 - world.positive)) + world.user_spread * taste
    positive = rng.binomial(rated, 1 / (1 + np.exp(-logit)))
    quality = num * (world.quality + 0.03 * taste)
    quality = quality + world.quality_sd * np.sqrt(num) * rng.normal(0, 1, taste.shape)
    return prior(quality, num, positive, rated)


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
    prior: Array
    """Of the user."""
    compared: Flags
    """Whether it is of the champion or the challenger that is looked at: all, where it is one."""


def ask(
    world: World,
    people: People,
    hour: float,
    share: Array,
    rng: np.random.Generator,
    *,
    lift: Array | None = None,
) -> Answers:
    """Someone asks, in every experiment, at `hour`; the challenger has `share` of the people.

    `lift`: of the challenger that each user would get, (experiments, users), where several are
    on trial; else the world's.
    """
    num = len(people.position)
    run = np.arange(num)
    user = np.searchsorted(people.weights, rng.random(num))
    treated = people.position[run, user] < share
    broken = world.is_bad and hour >= world.breaks_at
    better = world.lift if not broken else (world.broken_lift or world.lift)
    better = better if lift is None else lift[run, user]
    gain = 1 + (better + world.novelty * math.exp(-hour / 24)) * treated
    noise = rng.normal(0, 1, num)
    taste = people.taste[run, user]
    quality = world.quality * gain + world.quality_sd * noise + 0.03 * taste
    base = np.clip((world.positive + world.drift * hour / 168) * gain, 0.02, 0.98)
    logit = np.log(base / (1 - base)) + world.user_spread * taste + 0.5 * noise
    positive = rng.random(num) < 1 / (1 + np.exp(-logit))
    negative = ~positive & (rng.random(num) < 0.8)
    error = np.where(people.faulty[run, user], 0.5, world.error_rate)
    error = error + (world.outage if 60 <= hour < 70 else 0)
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
        prior=people.prior[run, user],
        compared=np.ones(num, dtype=bool),
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
        run, place = self._run, period * 2 + treated.astype(np.int64)
        own = self._own.reshape(*self._own.shape[:2], -1, arms.NUM_SUMS)
        half = self._half.reshape(len(run), -1, arms.NUM_SUMS, self._half.shape[-1])
        totals = self._totals.reshape(len(run), -1, arms.NUM_SUMS)
        own[run, user, place] += sums / 2
        # Σ inc ⊗ (old + inc / 2), plus its transpose, is the change of Σ own ⊗ own.
        half[run, place] += sums[:, :, None] * self._own[run, user][:, None, :]
        own[run, user, place] += sums / 2
        totals[run, place] += sums

    def clear(self) -> None:
        """Forget everything."""
        for sums in (self._own, self._half, self._totals):
            sums[:] = 0

    def moments(self) -> Moments:
        """As the product's comparison takes them."""
        totals = self._totals.reshape(len(self._run), *self._shape)
        return Moments(totals, self._half + self._half.swapaxes(1, 2))


class Watch:
    """The guardrails of all experiments, answer by answer, as `guardrails` has them."""

    def __init__(self, num: int, settings: ExperimentSettings) -> None:
        num_reference, tolerance = settings.guardrail_min_reference, settings.latency_tolerance
        self._run = np.arange(num)
        self._hits, self._nums = np.zeros((num, 2)), np.zeros((num, 2))
        self._seen = np.tile([0.5, 25.0], (num, 1))
        self._errors = Wealth(len(ODDS_RATIOS), num)
        self._allowance = np.array([1.0, 1 / tolerance])
        self._values = np.zeros((num, num_reference + 1))
        self._treated = np.zeros((num, num_reference + 1), dtype=bool)
        self._filled = np.zeros(num, dtype=np.int64)
        self._latency = Wealth(len(BETS), num)
        self._settings = settings
        self._past: list[tuple[Answers, Array]] = []

    def see(self, answers: Answers, share: Array) -> None:
        """One answer in each experiment, while the challenger had `share` of the people."""
        self._past.append((answers, share))
        self._see_errors(answers)
        self._see_latency(answers)

    def alarms(self, undecided: Flags) -> Flags:
        """Where errors or latency have passed the line, and the people bear it out."""
        line = -math.log(self._settings.guardrail_alpha)
        found = np.zeros(len(undecided), dtype=bool)
        for run in np.flatnonzero(undecided & (self._errors.highest > line)):
            people, treated, failed, _ = self._seen_of(run)
            found[run] = is_hopeless(treated, failed) or (
                people_log_e(people, treated, above_others(failed)) > line
            )
        for run in np.flatnonzero(undecided & (self._latency.highest > line) & ~found):
            people, treated, failed, latency = self._seen_of(run)
            size = self._values.shape[1]
            some = np.flatnonzero(~failed)
            some = some[: len(some) // size * size]
            allowed = (latency * self._allowance[treated.astype(np.int64)])[some]
            scores = normal_scores(allowed.reshape(-1, size)).ravel()
            found[run] = people_log_e(people.of(some), treated[some], scores) > line
        return found

    def _seen_of(self, run: np.intp) -> tuple[Units, Flags, Flags, Array]:
        """Who got each answer of one experiment, by whom, whether it failed, how long it took."""
        rows = [
            (past.user[run], share[run], past.treated[run], past.failed[run], past.latency[run])
            for past, share in self._past
            if past.compared[run]
        ]
        user, share, treated, failed, latency = map(np.array, zip(*rows, strict=True))
        return Units(user.astype(np.uint64), share), treated, failed, latency

    def leans(self) -> Flags:
        """Where one of them now speaks against the challenger."""
        return (self._errors.now > LEANING) | (self._latency.now > LEANING)

    def _see_errors(self, answers: Answers) -> None:
        run, arm = self._run, answers.treated.astype(np.int64)
        self._nums[run, arm] += answers.compared
        self._hits[run, arm] += answers.failed & answers.compared
        done = np.flatnonzero(np.minimum(*self._nums.T))
        if not len(done):
            return
        seen = self._seen[done]
        rate = np.clip(seen[:, 0] / seen[:, 1], 0.002, 0.9)
        (h0, h1), (n0, n1) = self._hits[done].T, self._nums[done].T
        bets = [two_rates_log_e(h1, n1, h0, n0, rate=rate, odds=odds) for odds in ODDS_RATIOS]
        self._errors.add(done, np.stack(bets))
        keep = np.exp(-n0 / RATE_MEMORY)[:, None]
        self._seen[done] = seen * keep + np.stack([h0, n0], axis=1)
        self._hits[done] = self._nums[done] = 0

    def _see_latency(self, answers: Answers) -> None:
        which = np.flatnonzero(~answers.failed & answers.compared)
        place, arm = self._filled[which], answers.treated[which]
        allowed = answers.latency[which] * self._allowance[arm.astype(np.int64)]
        self._values[which, place], self._treated[which, place] = allowed, arm
        self._filled[which] += 1
        done = np.flatnonzero(self._filled == self._values.shape[1])
        if len(done):
            self._latency.add(done, rank_log_es(self._treated[done], self._values[done]))
            self._filled[done] = 0


class Wealth:
    """Of several bets in all experiments, with the highest that their mean has been."""

    def __init__(self, num_bets: int, num: int) -> None:
        self.highest, self.now = np.zeros(num), np.zeros(num)
        self._each = Restarted((num_bets, num))

    def add(self, which: Indexes, log_es: Array) -> None:
        """ln of the e-values (bets, len(which)) of the next step of these experiments."""
        steps = np.zeros_like(self._each.wealth)
        steps[:, which] = log_es
        self._each.step(steps)
        self.now = mixed(list(self._each.wealth))
        self.highest = np.maximum(self.highest, self.now)


def rating_sums(answers: Answers) -> Array:
    """What a rating adds to a user's sums."""
    sums = np.zeros((len(answers.user), arms.NUM_SUMS))
    for name, values in (
        (arms.RATED, answers.rated),
        (arms.POSITIVE, answers.rated & answers.positive),
        (arms.NEGATIVE, answers.rated & answers.negative),
        (arms.RATED_SCORED, answers.rated),
        (arms.RATED_QUALITY, answers.rated * answers.quality),
        (arms.RATED_PRIOR, answers.rated * answers.prior),
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
