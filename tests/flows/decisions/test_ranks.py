"""Bets on ranks within blocks: fair without a difference, whatever the values are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.decisions.ranks import rank_log_es


def every_deal(values: list[float], num_treated: int) -> tuple[np.ndarray, np.ndarray]:
    """All ways in which `num_treated` of the answers may have been the treatment's."""
    ways = list(itertools.combinations(range(len(values)), num_treated))
    treated = np.zeros((len(ways), len(values)), dtype=bool)
    for row, chosen in enumerate(ways):
        treated[row, list(chosen)] = True
    return treated, np.broadcast_to(np.array(values), treated.shape)


@given(
    values=st.lists(st.floats(0, 1e6), min_size=2, max_size=7, unique=True),
    num_treated=st.integers(0, 7),
)
def test_over_all_ways_to_deal_a_block_the_mean_is_one(
    values: list[float], num_treated: int
) -> None:
    found = rank_log_es(*every_deal(values, min(num_treated, len(values))))
    assert np.exp(found).mean(axis=1) == pytest.approx(1)


@given(values=st.lists(st.integers(0, 3), min_size=2, max_size=7), num_treated=st.integers(0, 7))
def test_ties_speak_for_the_treatment(values: list[float], num_treated: int) -> None:
    found = rank_log_es(*every_deal(values, min(num_treated, len(values))))
    assert (np.exp(found).mean(axis=1) <= 1 + 1e-9).all()


def test_the_slowest_are_evidence_and_the_fastest_are_not() -> None:
    treated = np.array([True, True] + [False] * 18)
    slow = rank_log_es(treated, np.r_[50.0, 60.0, np.arange(18.0)])
    fast = rank_log_es(treated, np.r_[-1.0, -2.0, np.arange(18.0)])
    assert (slow > 0).all()
    assert (fast < 0).all()


def test_a_block_of_one_arm_says_nothing() -> None:
    for arm in (True, False):
        found = rank_log_es(np.full(20, arm), np.arange(20.0))
        assert found == pytest.approx(0, abs=1e-9)
