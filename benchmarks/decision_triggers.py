"""How often the quality and drift triggers fire by chance, and how soon on a real change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.results import Figure
from flows.decisions.change import prompt_drift, quality_change
from flows.decisions.sequential import Array
from registry.settings_decisions import TriggerSettings

SETTINGS = TriggerSettings()
QUARTER, REFERENCE = 91, SETTINGS.reference_days
NUM_CLASSES = 40
Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Quarter:
    """A quarter of answers whose quality falls at its middle."""

    name: str
    per_day: int = 500
    num_users: int = 300
    heaviness: float = 0.5
    user_sd: float = 0.05
    answer_sd: float = 0.15
    rhythm: float = 0.02
    """How much better people's requests go at noon than at midnight."""
    drop: float = 0.0
    """Relative, at once, in the middle of the quarter."""
    slide: float = 0.0
    """Relative, per day, from then on."""

    @property
    def is_stationary(self) -> bool:
        """Whether nothing changes."""
        return self.drop == 0 and self.slide == 0


CALM = Quarter("500 a day")
WORLDS = (
    CALM,
    replace(CALM, name="70 a day", per_day=70, num_users=60),
    replace(CALM, name="70 a day, heavy users", per_day=70, num_users=60, heaviness=1.2),
    replace(CALM, name="70 a day, varied answers", per_day=70, num_users=60, answer_sd=0.3),
    replace(CALM, name="500 a day, drop of 10%", drop=0.1),
    replace(CALM, name="500 a day, drop of 15%", drop=0.15),
    replace(CALM, name="70 a day, drop of 15%", per_day=70, num_users=60, drop=0.15),
    replace(CALM, name="500 a day, 1% worse every day", slide=0.01),
)


def figures(num: int, console: Console) -> list[Figure]:
    """Simulate `num` quarters of each world; print and return what came of them."""
    table = Table("quarter", "rule", "false alarms", "found", "median days")
    found: list[Figure] = []
    for world in WORLDS:
        fired = [alarms(world, np.random.default_rng([7, run])) for run in range(num)]
        for rule in ("plain 10% rule", "10% beyond chance", "change detector"):
            days = np.array([each[rule] for each in fired])
            early = float(np.nanmean(np.where(np.isnan(days), 0, days < 0)))
            late = days[days >= 0]
            share = len(late) / num
            median = float(np.median(late)) if len(late) else float("nan")
            table.add_row(world.name, rule, f"{early:.1%}", f"{share:.1%}", f"{median:.1f}")
            key = f"triggers, {world.name}, {rule}"
            if world.is_stationary:
                all_false = float((~np.isnan(days)).mean())
                ours = rule != "plain 10% rule"
                found.append(
                    Figure(
                        f"{key}: quarters with a false alarm",
                        all_false,
                        "share",
                        goal="≤ 1 false alarm a quarter" if ours else None,
                        holds=all_false <= 0.63 if ours else None,
                    )
                )
            else:
                found.append(Figure(f"{key}: change found", share, "share"))
                if len(late):
                    found.append(Figure(f"{key}: median days to it", median, "days"))
    console.print(table)
    found += drift_figures(num, console)
    return found


def alarms(world: Quarter, rng: np.random.Generator) -> dict[str, float]:
    """Days from the change until each rule's first alarm; below 0 too early, nan for never.

    The plain rule looks every hour at the last day and the one before; the detector once a day.
    """
    num_days = REFERENCE + QUARTER
    hours = num_days * 24
    day_rate = 1 + 0.7 * np.sin(2 * np.pi * (np.arange(hours) - 9) / 24)
    counts = rng.poisson(world.per_day / 24 * day_rate)
    hour: Indexes = np.repeat(np.arange(hours, dtype=np.int64), counts)
    weights = 1 / np.arange(1, world.num_users + 1) ** world.heaviness
    user = rng.choice(world.num_users, size=len(hour), p=weights / weights.sum())
    change = REFERENCE + QUARTER // 2
    days_after = np.maximum(0, hour / 24 - change)
    level = 0.8 * (1 - world.drop * (days_after > 0)) * (1 - world.slide) ** days_after
    level = level + world.rhythm * np.sin(2 * np.pi * (hour - 9) / 24)
    taste = rng.normal(0, world.user_sd, world.num_users)
    quality = np.clip(level + taste[user] + rng.normal(0, world.answer_sd, len(hour)), 0, 1)
    plain, sure = _plain(hour, user, quality, world.num_users, hours)
    return {
        "plain 10% rule": plain / 24 - change if plain else float("nan"),
        "10% beyond chance": sure / 24 - change if sure else float("nan"),
        "change detector": _detector(hour, quality, num_days, change),
    }


def _plain(
    hour: Indexes, user: Indexes, quality: Array, num_users: int, hours: int
) -> tuple[int, int]:
    """The hour of the first alarm of the plain rule, and of the one that allows for chance."""
    own = np.zeros((2, hours, num_users))
    np.add.at(own[0], (hour, user), 1)
    np.add.at(own[1], (hour, user), quality)
    sums = np.cumsum(own, axis=1)
    window = sums[:, 24:] - sums[:, :-24]
    first_plain = first_sure = 0
    for now in range(REFERENCE * 24, hours):
        (n0, s0), (n1, s1) = window[:, now - 48], window[:, now - 24]
        num = n0.sum(), n1.sum()
        if min(num) < SETTINGS.min_window_samples:
            continue
        before, after = s0.sum() / num[0], s1.sum() / num[1]
        drop = (before - after) / before
        if drop <= SETTINGS.quality_drop:
            continue
        first_plain = first_plain or now
        chance = float(np.hypot(_error(s0, n0), _error(s1, n1)))
        if drop > SETTINGS.quality_drop_errors * chance / before:
            return first_plain, now
    return first_plain, first_sure


def _error(sums: Array, nums: Array) -> float:
    """Standard error of a mean over users, as the product's SQL has it."""
    users, num = int((nums > 0).sum()), nums.sum()
    spread = ((sums - sums.sum() / num * nums) ** 2).sum() * users / max(users - 1, 1)
    return float(np.sqrt(spread) / num)


def _detector(hour: Indexes, quality: Array, num_days: int, change: int) -> float:
    day = hour // 24
    num = np.bincount(day, minlength=num_days)
    means = np.bincount(day, weights=quality, minlength=num_days) / np.maximum(num, 1)
    enough = num >= SETTINGS.min_window_samples
    usual = [float(mean) for mean, ok in zip(means[:REFERENCE], enough, strict=False) if ok]
    for today in range(REFERENCE + 1, num_days + 1):
        days = [
            float(mean)
            for mean, ok in zip(means[REFERENCE:today], enough[REFERENCE:today], strict=True)
            if ok
        ]
        found = quality_change(
            usual, days, tolerance=SETTINGS.change_tolerance, line=SETTINGS.change_days
        )
        if found is not None and found.fired:
            return today - change
    return float("nan")


def drift_figures(num: int, console: Console) -> list[Figure]:
    """The highest stability index of a quarter, day by day, in worlds of more and fewer people."""
    table = Table("prompts", "quarters with a false alarm", "95% of highest index")
    found: list[Figure] = []
    for per_day, num_users, moved in ((500, 300, 0.0), (70, 60, 0.0), (500, 300, 0.3)):
        highest = [
            highest_index(per_day, num_users, moved, np.random.default_rng([8, run]))
            for run in range(num)
        ]
        fired = float(np.mean([value > SETTINGS.drift_psi for value in highest]))
        name = f"{per_day} a day" + (f", {moved:.0%} become something else" if moved else "")
        table.add_row(name, f"{fired:.1%}", f"{np.quantile(highest, 0.95):.3f}")
        found.append(
            Figure(
                f"drift, {name}: quarters in which it fires",
                fired,
                "share",
                goal=None if moved else "≤ 1 false alarm a quarter",
                holds=None if moved else fired <= 0.63,
            )
        )
    console.print(table)
    return found


def highest_index(per_day: int, num_users: int, moved: float, rng: np.random.Generator) -> float:
    """The highest index over a quarter; people differ in what they ask for, and how much.

    `moved`: share of prompts of the second half that are of classes unusual before.
    """
    usual = rng.dirichlet(np.full(NUM_CLASSES, 0.7))
    weights = 1 / np.arange(1, num_users + 1) ** 0.7
    own = np.stack([rng.dirichlet(20 * usual + 1e-3) for _ in range(num_users)])
    num_days = REFERENCE + QUARTER
    days = np.zeros((num_days, NUM_CLASSES))
    new = np.roll(usual, NUM_CLASSES // 2)
    for day in range(num_days):
        asks = rng.multinomial(per_day, weights / weights.sum())
        mix = asks @ own / per_day
        if day > REFERENCE + QUARTER // 2:
            mix = (1 - moved) * mix + moved * new
        days[day] = rng.multinomial(per_day, mix / mix.sum())
    before = dict(enumerate(days[:REFERENCE].sum(axis=0)))
    highest = 0.0
    for today in range(REFERENCE + SETTINGS.drift_days, num_days + 1):
        now = dict(enumerate(days[today - SETTINGS.drift_days : today].sum(axis=0)))
        drift = prompt_drift(
            {str(k): int(v) for k, v in before.items()}, {str(k): int(v) for k, v in now.items()}
        )
        assert drift is not None
        if min(drift.num_reference, drift.num_now) >= SETTINGS.min_drift_samples:
            highest = max(highest, drift.psi)
    return highest
