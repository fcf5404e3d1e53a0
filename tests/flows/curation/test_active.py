"""Which answers are worth a label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.curation import active
from registry.features import NUMBERS, Features


def features(*names: str) -> Features:
    return Features(names, np.zeros(len(NUMBERS)))


def test_the_uncertain_come_first() -> None:
    chances = np.array([0.99, 0.5, 0.01, 0.9])
    rows = [features(f"name {number}") for number in range(4)]
    assert active.pick(chances, rows, num=1).tolist() == [1]
    assert active.uncertainty(chances) == pytest.approx([0.02, 1.0, 0.02, 0.2])


def test_a_batch_is_spread_over_different_answers() -> None:
    alike = [features("same", "words", "again")] * 10
    chances = np.array([0.5] * 10 + [0.45, 0.55])
    chosen = active.pick(chances, [*alike, features("other"), features("third")], num=3)
    assert set(chosen.tolist()) >= {10, 11}


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(0, 10))
def test_as_many_as_there_are_are_chosen_each_once(chances: list[float], num: int) -> None:
    rows = [features(f"name {number % 7}") for number in range(len(chances))]
    chosen = active.pick(np.array(chances), rows, num=num).tolist()
    assert len(chosen) == len(set(chosen)) == min(num, len(chances))


def test_projections_keep_what_is_alike_together() -> None:
    one, same, other = active.project(
        [
            features(*"abcdefgh"),
            features(*"abcdefgx"),
            features(*"12345678"),
        ]
    )
    assert one @ one == pytest.approx(1)
    assert one @ same > 0.6 > 0.4 > abs(one @ other)
