"""Guardrails: alarms where there is harm, silence where both arms suffer."""

import numpy as np
import pytest
from scipy.stats import norm

from flows.decisions.guardrails import errors, latency
from flows.decisions.people import Units


def arms(rng: np.random.Generator, num: int, share: float) -> np.ndarray:
    return rng.random(num) < share


def test_failures_of_the_challenger_alone_are_found_within_a_hundred_of_its_answers() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(100):
        challenger = arms(rng, 1000, 0.1)
        failed = rng.random(1000) < np.where(challenger, 0.21, 0.01)
        within = np.cumsum(challenger) <= 100
        found.append(errors(challenger[within], failed[within], alpha=0.01).alarm)
    assert np.mean(found) >= 0.95


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_equal_failures_raise_no_alarm_even_in_an_outage(share: float) -> None:
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(200):
        rate = np.full(800, 0.02)
        rate[300:400] = 0.5
        alarms += errors(arms(rng, 800, share), rng.random(800) < rate, alpha=0.01).alarm
    assert alarms / 200 <= 0.02


def test_twice_the_latency_is_found_within_a_hundred_of_its_answers() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(100):
        challenger = arms(rng, 1000, 0.1)
        taken = np.exp(0.5 * rng.normal(size=1000)) * np.where(challenger, 2, 1)
        within = np.cumsum(challenger) <= 100
        evidence = latency(
            challenger[within], taken[within], tolerance=1.25, num_reference=19, alpha=0.01
        )
        found.append(evidence.alarm)
    assert np.mean(found) >= 0.95


def test_an_equally_slow_challenger_with_long_tails_raises_no_alarm() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(200):
        taken = np.exp(rng.normal(size=600)) * (1 + np.arange(600) / 300)
        which = arms(rng, 600, 0.5)
        alarms += latency(which, taken, tolerance=1.25, num_reference=19, alpha=0.01).alarm
    assert alarms / 200 <= 0.02


def test_without_answers_of_both_arms_nothing_is_judged() -> None:
    flags = np.array([False] * 10)
    assert not latency(flags, np.ones(10), tolerance=1.25, num_reference=19, alpha=0.01).alarm
    assert not errors(flags, flags, alpha=0.01).alarm
    assert not errors(flags[:0], flags[:0], alpha=0.01).alarm


def world(
    rng: np.random.Generator, num_users: int, share: float
) -> tuple[Units, np.ndarray, np.ndarray]:
    """2,000 answers: who got them, whether of the challenger, and each user's own trait."""
    weight = 1 / np.arange(1, num_users + 1) ** 0.7
    unit = rng.choice(num_users, 2000, p=weight / weight.sum())
    people = Units(unit.astype(np.uint64), np.full(2000, share))
    return people, (rng.random(num_users) < share)[unit], rng.random(num_users)[unit]


def test_people_whose_requests_fail_with_anybody_are_not_the_challengers_fault() -> None:
    rng = np.random.default_rng(5)
    alarms = np.zeros(2)
    for _ in range(100):
        people, challenger, trait = world(rng, 60, 0.25)
        failed = rng.random(2000) < np.where(trait < 0.05, 0.5, 0.01)
        alarms += [
            errors(challenger, failed, alpha=0.01, people=known).alarm for known in (None, people)
        ]
    assert alarms[0] >= 6  # what answers as such would have claimed
    assert alarms[1] <= 2


def test_people_who_ask_for_long_answers_are_not_the_challengers_fault() -> None:
    rng = np.random.default_rng(6)
    alarms = np.zeros(2)
    for _ in range(60):
        people, challenger, trait = world(rng, 60, 0.1)
        taken = np.exp(0.5 * rng.normal(size=2000) + norm.ppf(trait) * 0.6)
        alarms += [
            latency(
                challenger, taken, tolerance=1.0, num_reference=19, alpha=0.01, people=known
            ).alarm
            for known in (None, people)
        ]
    assert alarms[0] >= 3
    assert alarms[1] <= 2


@pytest.mark.parametrize(("share_failing", "stops"), [(1.0, True), (0.5, False)])
def test_who_fails_nearly_always_is_stopped_though_one_person_saw_it(
    share_failing: float, stops: bool
) -> None:
    rng = np.random.default_rng(8)
    unit = rng.integers(0, 10, 400).astype(np.uint64)
    challenger = unit == 3
    failed = challenger & (rng.random(400) < share_failing)
    people = Units(unit, np.full(400, 0.1))
    assert errors(challenger, failed, alpha=0.01, people=people).alarm is stops


def test_an_outage_of_both_is_not_the_challengers_though_its_people_fail_more() -> None:
    rng = np.random.default_rng(8)
    unit = rng.integers(0, 10, 650).astype(np.uint64)
    challenger = unit == 3
    failed = challenger & (rng.random(650) < 0.5)
    failed[400:] = True
    people = Units(unit, np.full(650, 0.1))
    assert errors(challenger, failed, alpha=0.01).alarm
    assert not errors(challenger, failed, alpha=0.01, people=people).alarm


def test_with_many_people_faults_are_found_as_soon() -> None:
    rng = np.random.default_rng(7)
    found = np.zeros(3)
    for _ in range(20):
        people, challenger, _ = world(rng, 400, 0.1)
        failed = rng.random(2000) < np.where(challenger, 0.21, 0.01)
        taken = np.exp(0.5 * rng.normal(size=2000)) * np.where(challenger, 2, 1)
        within = np.cumsum(challenger) <= 100
        few = np.cumsum(challenger) <= 20
        everybody, some = people.of(within), people.of(few)
        found += [
            errors(challenger[within], failed[within], alpha=0.01, people=everybody).alarm,
            latency(
                challenger[within],
                taken[within],
                tolerance=1.25,
                num_reference=19,
                alpha=0.01,
                people=everybody,
            ).alarm,
            errors(challenger[few], challenger[few], alpha=0.01, people=some).alarm,
        ]
    assert found / 20 == pytest.approx(1, abs=0.1)
