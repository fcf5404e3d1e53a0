"""The formulas, and by simulation that they keep their promise at every look."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.decisions.sequential import (
    Sample,
    difference,
    first_alarm,
    rate_exceeds,
    wilson_upper,
)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=50))
def test_a_sample_has_numpys_mean_and_variance(values: list[float]) -> None:
    sample = Sample.of(values)
    assert sample.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert sample.variance == pytest.approx(np.var(values, ddof=1), abs=1e-9)


def test_the_margin_is_the_papers_formula() -> None:
    interval = difference(
        Sample(900, 0.5, 0.04), Sample(100, 0.6, 0.05), alpha=0.05, tuned_for=1000
    )
    assert interval is not None
    rho2 = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 1000
    sigma = math.sqrt(1000 * (0.05 / 100 + 0.04 / 900))
    margin = sigma * math.sqrt(
        2 * (1000 * rho2 + 1) / (1000**2 * rho2) * math.log(math.sqrt(1000 * rho2 + 1) / 0.05)
    )
    assert interval.estimate == pytest.approx(0.1)
    assert interval.upper - interval.lower == pytest.approx(2 * margin)


@pytest.mark.parametrize("num", [0, 1])
def test_an_arm_without_two_values_cannot_be_compared(num: int) -> None:
    assert difference(Sample(50, 0, 1), Sample(num, 0, 0), alpha=0.05, tuned_for=100) is None


def test_the_confidence_sequence_errs_less_than_alpha_over_all_looks() -> None:
    """400 experiments without a difference, looked at after every 20th answer from the 100th."""
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        control, treatment = rng.random((2, 1000)) < 0.5
        for num in range(100, 1001, 20):
            arms = [
                Sample(num, arm[:num].mean(), arm[:num].var(ddof=1)) for arm in (control, treatment)
            ]
            interval = difference(*arms, alpha=0.05, tuned_for=1000)
            assert interval is not None
            if not interval.lower <= 0 <= interval.upper:
                wrong += 1
                break
    assert wrong / 400 < 0.05


def test_the_e_process_raises_false_alarms_less_than_alpha() -> None:
    rng = np.random.default_rng(2)
    streams = rng.random((400, 1000)) < 0.05
    alarms = sum(first_alarm(list(stream), line=0.05, alpha=0.05).alarm for stream in streams)
    assert alarms / 400 < 0.05


def test_the_e_process_finds_a_doubled_rate_quickly() -> None:
    rng = np.random.default_rng(3)
    found = [
        first_alarm(list(stream), line=0.05, alpha=0.05)
        for stream in rng.random((200, 1500)) < 0.15
    ]
    assert np.median([state.num for state in found]) < 100
    assert sum(state.alarm for state in found) == 200


def test_an_alarm_is_latched_at_its_first_moment() -> None:
    state = first_alarm([True] * 10 + [False] * 1000, line=0.05, alpha=0.05)
    assert state.alarm
    assert state.num < 10


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_rate_below_its_line_never_alarms(hits: int, misses: int) -> None:
    state = rate_exceeds(hits, hits + misses, line=0.5, alpha=0.05)
    assert not (state.alarm and hits <= misses)


@pytest.mark.parametrize("line", [0.0, 1.0, -1.0])
def test_a_line_outside_the_open_interval_is_refused(line: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        rate_exceeds(1, 2, line=line, alpha=0.05)


@given(st.integers(0, 100), st.integers(1, 100))
def test_wilsons_upper_end_lies_above_the_rate(hits: int, extra: int) -> None:
    num = hits + extra
    assert hits / num < wilson_upper(hits, num) <= 1


def test_wilsons_upper_end_of_nothing_is_one() -> None:
    assert wilson_upper(0, 0) == 1
