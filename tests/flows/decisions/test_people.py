"""Evidence in which a person is one draw: fair whatever people are like."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.decisions.people import Units, people_log_e

SHARES = (0.1, 0.25, 0.5)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(SHARES), st.floats(-3, 3)),
        min_size=1,
        max_size=12,
    )
)
def test_over_all_ways_to_deal_the_people_the_mean_is_one(
    answers: list[tuple[int, float, float]],
) -> None:
    unit, share, scores = map(np.array, zip(*answers, strict=True))
    people = Units(unit.astype(np.uint64), share)
    total = 0.0
    # Where each person stands decides which shares give it the challenger: four places.
    for places in itertools.product(range(4), repeat=3):
        chance = math.prod((0.1, 0.15, 0.25, 0.5)[place] for place in places)
        treated = np.array(places)[unit] <= np.searchsorted(SHARES, share)
        total += chance * math.exp(people_log_e(people, treated, scores))
    assert total == pytest.approx(1)


def test_one_person_is_little_evidence_however_many_the_answers() -> None:
    scores = np.tile([1.0, 0.0, 0.0, 0.0], 500)
    treated = scores > 0
    one = Units(np.arange(2000, dtype=np.uint64) * ~treated, np.full(2000, 0.25))
    each = Units(np.arange(2000, dtype=np.uint64), np.full(2000, 0.25))
    assert people_log_e(one, treated, scores) < math.log(100)
    assert people_log_e(each, treated, scores) > 100


def test_where_nothing_differs_nothing_is_said() -> None:
    people = Units(np.arange(40, dtype=np.uint64), np.full(40, 0.5))
    assert people_log_e(people, np.arange(40) % 2 == 0, np.ones(40)) == pytest.approx(0)
    assert people_log_e(people.of(slice(0)), np.zeros(0, dtype=bool), np.zeros(0)) == 0
