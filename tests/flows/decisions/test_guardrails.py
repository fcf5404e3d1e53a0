"""Guardrails: alarms where there is harm, silence where both arms suffer."""

import numpy as np
import pytest

from flows.decisions.guardrails import errors, latency


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
