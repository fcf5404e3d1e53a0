"""The rules that decide in the simulated experiments: ours, and three that others use."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from benchmarks.decision_simulation import (
    LOOKS_PER_HOUR,
    Answers,
    Flags,
    Indexes,
    Pending,
    People,
    PeopleSums,
    Watch,
    answer_sums,
    arrivals,
    ask,
    rating_sums,
)
from benchmarks.decision_worlds import World
from flows.decisions import comparison as arms
from flows.decisions.comparison import compare, progress, relative_improvement
from flows.decisions.guardrails import LEANING
from flows.decisions.sequential import Array, log_e_worse, margin, split_log_e, tightest_at
from registry.settings_decisions import ExperimentSettings

UNDECIDED, PROMOTED, RETIRED, ROLLED_BACK = range(4)


@dataclass
class Outcome:
    """What one rule did in each experiment."""

    action: Indexes
    hours: Array
    """Until the decision; the whole duration where there was none."""
    rated: Array
    """Ratings by then, both arms."""
    treated: Array
    """Answers of the challenger by then."""
    bad: Array
    """How many of those failed, were slow (over the champion's p95) or displeased."""
    harmed: Array
    """Answers of the challenger since it is broken."""

    @classmethod
    def empty(cls, num: int, days: int) -> Outcome:
        """Nothing decided yet."""
        zeros, undecided = np.zeros(num), np.zeros(num, dtype=np.int64)
        return cls(undecided, zeros + 24 * days, *(zeros.copy() for _ in range(4)))

    def see(self, answers: Answers, slow: float, *, broken: bool) -> None:
        """One answer in each experiment that still runs."""
        runs = (self.action == UNDECIDED) & answers.compared
        self.treated += runs & answers.treated
        self.harmed += runs & answers.treated & broken
        bad = answers.failed | answers.negative | (answers.latency > slow)
        self.bad += runs & answers.treated & bad
        self.rated += runs & answers.rated

    def decide(self, which: Flags, action: int, hour: float) -> None:
        """End those of `which` that still run."""
        now = which & (self.action == UNDECIDED)
        self.action[now] = action
        self.hours[now] = hour


class Ours:
    """The product's rule, on the product's statistics."""

    def __init__(
        self,
        world: World,
        num: int,
        settings: ExperimentSettings,
        *,
        use_unrated: bool = True,
        use_prior: bool = True,
        sure_of: Sequence[float] = (),
    ) -> None:
        """`sure_of`: an adaptive share: how likely better it must be for each of the last steps."""
        self.settings = settings
        self.shares = np.array(settings.shares)
        self.step = np.zeros(num, dtype=np.int64)
        self.outcome = Outcome.empty(num, world.days)
        self._use_unrated, self._use_prior = use_unrated, use_prior
        self._sums = PeopleSums(num, world.num_users, len(settings.shares))
        self._watch = Watch(num, settings)
        self._pending: Pending = defaultdict(list)
        self._answers_today = np.zeros((num, world.num_users))
        self._ratings_today = np.zeros((num, world.num_users))
        self._seen = np.zeros((num, world.num_users), dtype=bool)
        self._split = np.zeros((num, len(settings.shares), 2))
        self._sure_of = np.array([0.0] * (len(settings.shares) - len(sure_of)) + list(sure_of))
        self._tightest = tightest_at(settings.alpha)
        first = settings.shares[0]
        self._tuned_for = settings.min_rated * (1 - first)

    @property
    def share(self) -> Array:
        """Of the challenger, in each experiment."""
        found: Array = self.shares[self.step]
        return found

    def answered(self, answers: Answers, number: int, rated_at: int) -> None:
        """One answer in each experiment before the look `number`, rated before `rated_at`."""
        run, user = np.arange(len(self.step)), answers.user
        new = ~self._seen[run, user] & answers.compared
        self._seen[run, user] |= answers.compared
        self._split[run, self.step, answers.treated.astype(np.int64)] += new
        self._watch.see(answers, self.share)
        counted = self._is_counted(self._answers_today, user, answers.compared)
        sums = answer_sums(answers) * (counted & answers.compared)[:, None]
        if rated_at == number:
            sums += self._rating(answers)
        else:
            self._pending[rated_at].append((answers, self.step.copy()))
        self._sums.add(user, self.step, answers.treated, sums)

    def _is_counted(self, today: Array, user: Indexes, which: Flags | bool = True) -> Flags:
        """Whether each user has not yet counted for as much as one may in a day."""
        run = np.arange(len(user))
        today[run, user] += which
        found: Flags = today[run, user] <= self.settings.max_per_user_day
        return found

    def _rating(self, answers: Answers) -> Array:
        rated = answers.rated & answers.compared
        counted = self._is_counted(self._ratings_today, answers.user, rated)
        return rating_sums(answers) * (counted & answers.compared)[:, None]

    def look(self, number: int) -> None:
        """Take in the ratings that came, and decide."""
        if number == self.settings.settle_hours * LOOKS_PER_HOUR:
            # What is new pleases or puzzles: from here on, only what comes counts.
            self._sums.clear()
            self._pending.clear()
        if number % (24 * LOOKS_PER_HOUR) == 0:
            self._answers_today[:] = self._ratings_today[:] = 0
        for answers, period in self._pending.pop(number, []):
            self._sums.add(answers.user, period, answers.treated, self._rating(answers))
        settings, hour, outcome = self.settings, (number + 1) / LOOKS_PER_HOUR, self.outcome
        line = -math.log(settings.guardrail_alpha)
        outcome.decide(self._watch.alarms(outcome.action == UNDECIDED), ROLLED_BACK, hour)
        moments = self._sums.moments()
        rated = moments.totals[..., arms.RATED].sum(axis=1)
        with np.errstate(all="ignore"):
            found = compare(moments, use_unrated=self._use_unrated, use_prior=self._use_prior)
            known = np.isfinite(found.variance) & (found.variance > 0)
            variance = np.where(known, found.variance, 1.0)
            gathered = progress(variance, tuned_for=self._tuned_for, tightest=self._tightest)
            half = margin(variance, gathered, alpha=settings.alpha)
            improvement = relative_improvement(found)
        negative = self._negative(found, rated)
        outcome.decide(negative > line, ROLLED_BACK, hour)
        fair = self._split_log_e() <= -math.log(settings.split_alpha)
        people = known & fair & (found.num_users >= settings.min_users).all(axis=1)
        settled = hour > settings.settle_hours
        enough = people & (rated >= settings.min_rated).all(axis=1) & (hour >= settings.min_hours)
        better = (found.estimate - half > 0) & (improvement >= settings.min_improvement)
        outcome.decide(enough & better, PROMOTED, hour)
        some = people & (rated >= settings.guardrail_min_rated).all(axis=1) & settled
        outcome.decide(some & (found.estimate + half < 0), RETIRED, hour)
        here = moments.totals[np.arange(len(self.step)), self.step, 1, arms.RATED]
        leans = self._watch.leans() | (negative > LEANING)
        ready = (here >= settings.ramp_min_rated) & (found.estimate >= 0) & fair & ~leans
        following = np.minimum(self.step + 1, len(self.shares) - 1)
        ready &= norm.cdf(found.estimate / np.sqrt(variance)) >= self._sure_of[following]
        self.step += ready & (self.step < len(self.shares) - 1)

    def _negative(self, found: arms.Comparison, rated: Array) -> Array:
        settings = self.settings
        known = np.isfinite(found.negative_variance) & (found.negative_variance > 0)
        variance = np.where(known, found.negative_variance, 1.0)
        z = (found.negative - settings.negative_tolerance) / np.sqrt(variance)
        gathered = progress(variance, tuned_for=self._tuned_for, tightest=self._tightest)
        enough = (rated >= settings.guardrail_min_rated).all(axis=1) & known
        return np.where(enough, log_e_worse(z, gathered), -np.inf)

    def _split_log_e(self) -> Array:
        num = self._split.sum(axis=-1)
        found: Array = split_log_e(self._split[..., 1], num, share=self.shares).sum(axis=-1)
        return found


@dataclass
class Pooled:
    """Sums of each arm, people and periods thrown together: what the peers look at."""

    num: Array
    quality: Array
    rated: Array
    positive: Array
    composite: Array
    squares: Array

    @classmethod
    def empty(cls, num: int) -> Pooled:
        """Of `num` experiments."""
        return cls(*(np.zeros((num, 2)) for _ in range(6)))

    def answered(self, answers: Answers) -> None:
        """One answer in each experiment."""
        run, arm = np.arange(len(self.num)), answers.treated.astype(np.int64)
        self.num[run, arm] += ~answers.failed
        self.quality[run, arm] += ~answers.failed * answers.quality

    def was_rated(self, answers: Answers) -> None:
        """Its rating."""
        run, arm = np.arange(len(self.num)), answers.treated.astype(np.int64)
        composite = 0.5 * answers.quality + 0.3 * answers.positive
        self.rated[run, arm] += answers.rated
        self.positive[run, arm] += answers.rated & answers.positive
        self.composite[run, arm] += answers.rated * composite
        self.squares[run, arm] += answers.rated * composite**2

    def improvement(self) -> Array:
        """The overall score of challenger over champion, without latency."""
        quality = self.quality / np.maximum(self.num, 1)
        positive = self.positive / np.maximum(self.rated, 1)
        found: Array = 0.5 * (quality[:, 1] / quality[:, 0] - 1) + 0.3 * (
            positive[:, 1] / positive[:, 0] - 1
        )
        return found

    def z(self) -> Array:
        """Welch's statistic of the composite."""
        mean = self.composite / self.rated
        variance = (self.squares / self.rated - mean**2) / self.rated
        found: Array = (mean[:, 1] - mean[:, 0]) / np.sqrt(variance.sum(axis=1))
        return found


def brien_fleming(num_looks: int, alpha: float = 0.05) -> float:
    """The constant of O'Brien & Fleming's bounds, two-sided, by simulated Brownian motion."""
    steps = np.random.default_rng(0).normal(size=(100_000, num_looks))
    number = np.arange(1, num_looks + 1)
    z = np.cumsum(steps, axis=1) / np.sqrt(number)
    highest = np.abs(z * np.sqrt(number / num_looks)).max(axis=1)
    return float(np.quantile(highest, 1 - alpha))


def play(world: World, seed: int, rules: list[Ours]) -> None:
    """Let each rule of ours decide its own `num` experiments of `world`."""
    rng = np.random.default_rng(seed)
    counts = arrivals(world, rng)
    slow = math.exp(1.645 * math.hypot(world.latency_sigma, world.latency_spread))
    crowds = [People.draw(world, len(rule.step), rng) for rule in rules]
    for number, count in enumerate(counts):
        hour = number / LOOKS_PER_HOUR
        going = [
            (rule, crowd)
            for rule, crowd in zip(rules, crowds, strict=True)
            if (rule.outcome.action == UNDECIDED).any()
        ]
        if not going:
            return
        for _ in range(count):
            rated_at = number + round(rng.exponential(world.rating_delay) * LOOKS_PER_HOUR)
            for rule, crowd in going:
                answers = ask(world, crowd, hour, rule.share, rng)
                rule.outcome.see(answers, slow, broken=hour >= world.breaks_at)
                rule.answered(answers, number, rated_at)
        for rule, _ in going:
            rule.look(number)


def play_peers(world: World, num: int, seed: int) -> dict[str, Outcome]:
    """The plain rule at 10 %, a t-test looked at all the time and a group-sequential at 50 %."""
    rng = np.random.default_rng(seed + 1)
    counts = arrivals(world, rng)
    slow = math.exp(1.645 * math.hypot(world.latency_sigma, world.latency_spread))
    crowds = [People.draw(world, num, rng) for _ in range(2)]
    pooled = [Pooled.empty(num) for _ in range(2)]
    outcomes = {name: Outcome.empty(num, world.days) for name in ("plain", "t-test", "group-seq.")}
    shown = {0: ("plain",), 1: ("t-test", "group-seq.")}
    pending: dict[int, list[list[Answers]]] = defaultdict(list)
    bound, quantile = brien_fleming(world.days), float(norm.ppf(0.975))
    for number, count in enumerate(counts):
        for _ in range(count):
            rated_at = number + round(rng.exponential(world.rating_delay) * LOOKS_PER_HOUR)
            both = [
                ask(world, crowd, number / LOOKS_PER_HOUR, np.full(num, share), rng)
                for crowd, share in zip(crowds, (0.1, 0.5), strict=True)
            ]
            for index, answers in enumerate(both):
                pooled[index].answered(answers)
                for name in shown[index]:
                    outcomes[name].see(answers, slow, broken=True)
            pending[rated_at].append(both)
        for both in pending.pop(number, []):
            for index, answers in enumerate(both):
                pooled[index].was_rated(answers)
        hour = (number + 1) / LOOKS_PER_HOUR
        if hour < 48:
            continue
        with np.errstate(all="ignore"):
            enough = [(sums.rated >= 100).all(axis=1) for sums in pooled]
            better = [sums.improvement() >= 0.05 for sums in pooled]
            z = pooled[1].z()
        outcomes["plain"].decide(enough[0] & better[0], PROMOTED, hour)
        outcomes["t-test"].decide(enough[1] & (z > quantile), PROMOTED, hour)
        outcomes["t-test"].decide(enough[1] & (z < -quantile), RETIRED, hour)
        if hour % 24 == 0:
            line = bound * math.sqrt(world.days / (hour / 24))
            outcomes["group-seq."].decide(z > line, PROMOTED, hour)
            outcomes["group-seq."].decide(z < -line, RETIRED, hour)
    return outcomes
