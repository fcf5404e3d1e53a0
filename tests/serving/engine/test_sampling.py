"""Sampling follows the probabilities, row by row."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from serving.engine.sampling import FIRST_CANDIDATES, RowSampling, alternatives, choose


def row(**changes: Any) -> RowSampling:
    values = {"temperature": 1.0, "generator": random.Random(0)} | changes
    return RowSampling(**values)


def draw(sampling: RowSampling, logits: torch.Tensor, times: int) -> torch.Tensor:
    """Tokens [times], drawn one after the other."""
    return torch.tensor([choose(logits[None], [sampling])[0] for _ in range(times)])


def test_frequencies_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    found = torch.bincount(draw(row(), probabilities.log(), 4000), minlength=4) / 4000
    assert torch.allclose(found, probabilities, atol=0.03)


def test_temperature_sharpens() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    drawn = draw(row(temperature=0.5), probabilities.log(), 4000)
    expected = probabilities**2 / (probabilities**2).sum()
    assert torch.allclose(torch.bincount(drawn, minlength=3) / 4000, expected, atol=0.03)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
    assert set(draw(row(top_p=0.7), logits, 500).tolist()) == {1, 3}
    assert set(draw(row(top_p=0.01), logits, 50).tolist()) == {1}


def test_top_k_keeps_the_best_and_top_p_is_taken_of_them() -> None:
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
    assert set(draw(row(top_k=3), logits, 800).tolist()) == {0, 1, 3}
    assert set(draw(row(top_k=1), logits, 20).tolist()) == {1}
    # 0.5 of the best two's 0.8 is more than 0.6: the second is not needed.
    assert set(draw(row(top_k=2, top_p=0.6), logits, 300).tolist()) == {1}


@pytest.mark.parametrize("cut", [{}, {"top_k": 1}, {"top_p": 0.5}, {"top_p": 1e-46}, {"top_p": 0}])
def test_the_largest_draw_stays_among_what_is_kept(cut: dict[str, Any]) -> None:
    class Largest(random.Random):
        def random(self) -> float:
            return 1 - 2**-53

    logits = torch.full((1000,), -200.0)
    logits[7] = 0.0
    assert draw(row(generator=Largest(), **cut), logits, 1).tolist() == [7]


@pytest.mark.parametrize("cut", [{"top_p": 0.999}, {"top_k": 600}])
def test_cuts_beyond_the_first_candidates_are_exact(cut: dict[str, Any]) -> None:
    size = 4 * FIRST_CANDIDATES
    logits = torch.zeros(size)
    drawn = draw(row(**cut), logits, 3000)
    kept = 600 if "top_k" in cut else size
    assert drawn.unique().numel() > 0.9 * kept


def test_rows_with_few_and_many_candidates_share_a_step() -> None:
    logits = torch.stack([torch.zeros(2000), torch.full((2000,), -50.0)])
    logits[1, 7] = 0.0
    rows = [row(top_p=0.9), row(top_p=0.9)]
    drawn = [choose(logits, rows) for _ in range(100)]
    assert {second for _, second in drawn} == {7}
    assert len({first for first, _ in drawn}) > 80


def test_zero_temperature_is_greedy_beside_rows_that_are_not() -> None:
    rows = [row(temperature=0), row(temperature=2.0)]
    logits = torch.tensor([[0.0, 1.0, 0.5]] * 2)
    drawn = [choose(logits, rows) for _ in range(100)]
    assert {first for first, _ in drawn} == {1}
    assert {second for _, second in drawn} == {0, 1, 2}


def test_a_row_draws_from_its_own_chance_alone() -> None:
    logits = torch.zeros(3, 50)
    rows = [row(generator=random.Random(seed)) for seed in (1, 2, 3)]
    together = [choose(logits, rows)[2] for _ in range(5)]
    alone = row(generator=random.Random(3))
    assert together == [choose(logits[:1], [alone])[0] for _ in range(5)]


def test_what_is_not_a_number_is_told_for_its_row_alone() -> None:
    logits = torch.zeros(3, 5)
    logits[1, 2] = float("nan")
    logits[2, 0] = float("inf")
    for temperature in (0.0, 1.0):
        chosen = choose(logits, [row(temperature=temperature)] * 3)
        assert chosen[0] is not None
        assert chosen[1:] == [None, None]


def test_alternatives_are_log_probabilities_best_first() -> None:
    probabilities = torch.tensor([0.2, 0.5, 0.3])
    worth = alternatives(probabilities.log(), 0, 2)
    assert worth.logprob == pytest.approx(probabilities[0].log().item())
    assert [token for token, _ in worth.top] == [1, 2]
    assert alternatives(probabilities.log(), 0, 20).top[-1][0] == 0
