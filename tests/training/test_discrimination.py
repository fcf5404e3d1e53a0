from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.discrimination import auc, discrimination

SCORES = st.lists(st.integers(0, 5), min_size=1, max_size=20)


@given(SCORES, SCORES)
def test_the_auc_is_the_share_of_pairs_in_the_right_order(
    liked: list[int], other: list[int]
) -> None:
    pairs = [(a > b) + (a == b) / 2 for a, b in product(liked, other)]
    scores = np.array([*liked, *other], float)
    found = auc(scores, np.array([True] * len(liked) + [False] * len(other)))
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_chances_that_come_true_are_calibrated() -> None:
    liked = np.array([True] * 80 + [False] * 20)
    found = discrimination(
        np.full(100, 0.8), np.random.default_rng(1).permutation(liked), np.ones(100)
    )
    assert found.calibration_error < 0.15
    assert found.brier == pytest.approx(0.16)
    assert (found.auc, found.num_liked, found.num_other) == (0.5, 80, 20)


def test_a_small_test_has_a_large_error() -> None:
    def error(num: int) -> float:
        scores = np.tile([0.2, 0.4, 0.3, 0.5], num)
        return discrimination(
            scores, np.tile([False, False, True, True], num), np.ones(4 * num)
        ).auc_error

    assert error(2) > 2 * error(20) > 0
