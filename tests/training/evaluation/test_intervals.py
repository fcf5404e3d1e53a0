from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.intervals import interval, paired_interval


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_lies_within_its_values(values: list[float]) -> None:
    low, high = interval(values)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for turn in range(200):
        low, high = interval((rng.random(80) < 0.6).tolist(), seed=turn)
        held += low <= 0.6 <= high
    assert 180 <= held <= 198


def test_pairs_are_surer_than_strangers() -> None:
    rng = np.random.default_rng(1)
    before = (rng.random(100) < 0.5).astype(float)
    after = np.maximum(before, rng.random(100) < 0.1)
    low, high = paired_interval(before.tolist(), after.tolist())
    assert 0 < low < high
    width = np.subtract(*interval(after.tolist())[::-1])
    assert high - low < width


def test_answers_to_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 answers cannot be paired with 1"):
        paired_interval([0, 1], [1])
    with pytest.raises(ValueError, match="no value"):
        interval([])
