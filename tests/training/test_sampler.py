from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.sampler import Sampler

GROUPS = st.lists(st.sampled_from(["email", "code", "image"]), min_size=1, max_size=30)


@given(groups=GROUPS, batch=st.integers(1, 7), seed=st.integers(0, 99))
def test_one_pass_draws_every_example_once(groups: list[str], batch: int, seed: int) -> None:
    sampler = Sampler(groups, global_batch=batch, seed=seed, balance=False)
    steps = range(-(-len(groups) // batch))
    drawn = [index for step in steps for index in sampler.batch(step)][: len(groups)]
    assert sorted(drawn) == list(range(len(groups)))


@given(groups=GROUPS, seed=st.integers(0, 99))
def test_balanced_draws_give_every_group_the_same_share(groups: list[str], seed: int) -> None:
    num_groups = len(set(groups))
    sampler = Sampler(groups, global_batch=4 * num_groups, seed=seed, balance=True)
    counts = Counter(groups[index] for index in sampler.batch(3))
    assert set(counts.values()) == {4}


def test_a_step_draws_the_same_whatever_was_drawn_before() -> None:
    groups = ["a"] * 10
    fresh = Sampler(groups, global_batch=4, seed=1, balance=False)
    used = Sampler(groups, global_batch=4, seed=1, balance=False)
    for step in range(9):
        used.batch(step)
    assert fresh.batch(9) == used.batch(9)
    assert fresh.batch(9) != Sampler(groups, global_batch=4, seed=2, balance=False).batch(9)


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(ValueError, match="groups must not be empty"):
        Sampler([], global_batch=1, seed=0, balance=False)
