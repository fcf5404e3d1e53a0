from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.intervals import interval


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_holds_the_mean_and_lies_between_0_and_1(values: list[float]) -> None:
    low, high = interval(values)
    assert 0 <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= 1
    assert low < high


@pytest.mark.parametrize("rate", [0.05, 0.6, 0.97])
@pytest.mark.parametrize("num", [12, 80])
def test_nineteen_of_twenty_intervals_hold_the_truth(rate: float, num: int) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for turn in range(300):
        low, high = interval((rng.random(num) < rate).tolist(), seed=turn)
        held += low <= rate <= high
    assert held >= 0.92 * 300


@pytest.mark.parametrize("num", [5, 80])
def test_so_do_those_of_shares(num: int) -> None:
    rng = np.random.default_rng(1)
    held = 0
    for turn in range(300):
        low, high = interval(rng.beta(6, 2, num).tolist(), seed=turn)
        held += low <= 0.75 <= high
    assert held >= 0.92 * 300


def test_a_few_that_are_all_right_are_no_certainty() -> None:
    # Wilson 1927: n / (n + z²).
    assert interval([1.0] * 12) == pytest.approx((12 / (12 + 1.959964**2), 1.0))
    assert interval([0.0] * 12) == pytest.approx((0.0, 1.959964**2 / (12 + 1.959964**2)))
    low, high = interval([0.5])
    assert low < 0.1
    assert high > 0.9


def test_of_nothing_there_is_no_interval() -> None:
    with pytest.raises(ValueError, match="no value"):
        interval([])
