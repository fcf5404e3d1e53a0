"""Sampling follows the probabilities, row by row."""

from __future__ import annotations

import random

import torch

from serving.sampling import Sampler, SamplingParams

CPU = torch.device("cpu")


def draw(params: SamplingParams, logits: torch.Tensor, times: int) -> torch.Tensor:
    sampler = Sampler([params], rng=random.Random(0), device=CPU)
    return torch.cat([sampler.sample(logits[None]) for _ in range(times)])


def test_frequencies_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawn = draw(SamplingParams(temperature=1), probabilities.log(), 4000)
    found = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(found, probabilities, atol=0.03)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
    assert set(draw(SamplingParams(temperature=1, top_p=0.7), logits, 500).tolist()) == {1, 3}
    assert set(draw(SamplingParams(temperature=1, top_p=0.01), logits, 50).tolist()) == {1}


def test_zero_temperature_is_greedy_beside_rows_that_are_not() -> None:
    params = [SamplingParams(temperature=0), SamplingParams(temperature=2.0)]
    sampler = Sampler(params, rng=random.Random(1), device=CPU)
    logits = torch.tensor([[0.0, 1.0, 0.5]] * 2)
    drawn = torch.stack([sampler.sample(logits) for _ in range(100)])
    assert drawn[:, 0].tolist() == [1] * 100
    assert len(set(drawn[:, 1].tolist())) == 3


def test_rows_that_stay_keep_their_own_chance() -> None:
    params = [SamplingParams(temperature=1, seed=seed) for seed in (1, 2, 3)]
    logits = torch.zeros(3, 50)
    together = Sampler(params, rng=random.Random(0), device=CPU)
    together.sample(logits)
    together.keep([2])
    alone = Sampler(params[2:], rng=random.Random(9), device=CPU)
    alone.sample(logits[:1])
    assert together.sample(logits[:1]).tolist() == alone.sample(logits[:1]).tolist()
