"""Chooses the next token of each row, each row with its own temperature, top-p and chance.

A row draws one uniform number per token from its own generator, so that a seeded request
does not depend on who shares its batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How one request is sampled."""

    temperature: float = 0.8
    """0 is greedy."""
    top_p: float = 1.0
    """Share of the probability that is kept, in (0, 1]."""
    seed: int | None = None


class Sampler:
    """The sampling of a batch; rows leave it as they end."""

    def __init__(
        self, params: Sequence[SamplingParams], *, rng: random.Random, device: torch.device
    ) -> None:
        """`rng` gives the rows without a seed their own."""
        self._generators = [
            random.Random(rng.getrandbits(63) if row.seed is None else row.seed) for row in params
        ]
        self._device = device
        self._temperature = torch.tensor([row.temperature for row in params], device=device)
        self._top_p = torch.tensor([row.top_p for row in params], device=device)
        self._summarise()

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        index = torch.tensor(rows, device=self._device)
        self._generators = [self._generators[row] for row in rows]
        self._temperature = self._temperature[index]
        self._top_p = self._top_p[index]
        self._summarise()

    def sample(self, logits: torch.Tensor) -> torch.Tensor:
        """Token ids [rows] from logits [rows, vocabulary]."""
        greedy = logits.argmax(dim=-1)
        if self._all_greedy:
            return greedy
        uniform = torch.tensor(
            [generator.random() for generator in self._generators], device=self._device
        )
        scaled = logits.float() / self._temperature.clamp(min=1e-6)[:, None]
        probabilities = torch.softmax(scaled, dim=-1)
        if self._any_nucleus:
            sampled = _sample_nucleus(probabilities, uniform, self._top_p)
        else:
            sampled = _invert(probabilities.cumsum(dim=-1), uniform)
        return torch.where(self._temperature > 0, sampled, greedy)

    def _summarise(self) -> None:
        self._all_greedy = not bool((self._temperature > 0).any())
        self._any_nucleus = bool((self._top_p < 1).any())


def _sample_nucleus(
    probabilities: torch.Tensor, uniform: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    # The most probable token is always kept: before it, nothing has been summed up.
    kept = ordered.masked_fill(before >= top_p[:, None], 0.0)
    chosen = _invert(kept.cumsum(dim=-1), uniform)
    return tokens.gather(-1, chosen[:, None]).squeeze(-1)


def _invert(cumulative: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative weight exceeds the drawn share of the total."""
    threshold = uniform[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    return index.clamp(max=cumulative.shape[-1] - 1)
