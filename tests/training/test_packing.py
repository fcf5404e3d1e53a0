from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from training.packing import bins, deal, padded_bins

SIZES = st.lists(st.integers(1, 50), max_size=40)


@given(sizes=SIZES, budget=st.integers(1, 120))
def test_bins_hold_everything_once_and_keep_to_the_budget(sizes: list[int], budget: int) -> None:
    found = bins(sizes, budget)
    assert sorted(index for chosen in found for index in chosen) == list(range(len(sizes)))
    for chosen in found:
        assert sum(sizes[index] for index in chosen) <= budget or len(chosen) == 1


@given(sizes=SIZES, budget=st.integers(50, 120))
def test_no_two_bins_would_fit_into_one(sizes: list[int], budget: int) -> None:
    sums = sorted(sum(sizes[index] for index in chosen) for chosen in bins(sizes, budget))
    assert len(sums) < 2 or sums[0] + sums[1] > budget


@given(
    groups=st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=2), max_size=40),
    budget=st.integers(1, 300),
)
def test_padded_bins_hold_everything_once_and_keep_to_the_budget_with_their_padding(
    groups: list[list[int]], budget: int
) -> None:
    found = padded_bins(groups, budget)
    assert sorted(index for chosen in found for index in chosen) == list(range(len(groups)))
    for chosen in found:
        rows = [length for index in chosen for length in groups[index]]
        assert len(rows) * max(rows) <= budget or len(chosen) == 1


@given(sizes=SIZES, num_hands=st.integers(1, 5))
def test_hands_hold_everything_once_and_differ_by_one_card_at_most(
    sizes: list[int], num_hands: int
) -> None:
    hands = deal(sizes, num_hands)
    assert sorted(index for hand in hands for index in hand) == list(range(len(sizes)))
    sums = [sum(sizes[index] for index in hand) for hand in hands]
    assert max(sums) - min(sums) <= max(sizes, default=0)
