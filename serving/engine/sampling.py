"""Chooses the next token of each row, each row with its own temperature, cuts and chance.

A row draws one uniform number per token from its own generator, so that a seeded request
does not depend on who shares its batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

FIRST_CANDIDATES = 256
"""A vocabulary is sorted in full only where so many tokens do not reach top-p."""


@dataclass(frozen=True, kw_only=True)
class RowSampling:
    """How one row is sampled."""

    temperature: float
    """0 is greedy."""
    top_p: float = 1.0
    """Share of the probability that is kept, in [0, 1], after `top_k`; 0: the best alone."""
    top_k: int | None = None
    generator: random.Random
    """The row's own chance; it moves on by one draw per token."""

    @property
    def cuts(self) -> bool:
        """Whether less than the whole vocabulary is drawn from."""
        return self.top_p < 1 or self.top_k is not None


@dataclass(frozen=True)
class Alternatives:
    """A token's natural log-probability before temperature and cuts, and the best ones."""

    logprob: float
    top: tuple[tuple[int, float], ...]
    """Token ids, best first."""


def choose(logits: torch.Tensor, rows: Sequence[RowSampling]) -> list[int | None]:
    """Token ids for logits [rows, vocabulary]; None where they are not numbers."""
    greedy = _likeliest(logits)
    # What is not a number counts as the largest, and is no finite one.
    sane = logits.gather(-1, greedy[:, None])[:, 0].isfinite().tolist()
    chosen: list[int | None] = [
        token if fine else None for token, fine in zip(greedy.tolist(), sane, strict=True)
    ]
    for cut in (False, True):
        members = [
            index
            for index, row in enumerate(rows)
            if sane[index] and row.temperature > 0 and row.cuts == cut
        ]
        if members:
            picked = logits if len(members) == len(rows) else logits[members]
            tokens = _draw(picked, [rows[index] for index in members], cut)
            for index, token in zip(members, tokens.tolist(), strict=True):
                chosen[index] = token
    return chosen


def alternatives(logits: torch.Tensor, token: int, count: int) -> Alternatives:
    """What `count` other tokens had been worth, from logits [vocabulary]."""
    logprobs = logits.float().log_softmax(dim=-1)
    best = logprobs.topk(min(count, logprobs.shape[-1]))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Alternatives(float(logprobs[token]), tuple(pairs))


def _likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The largest value's place in each row."""
    if logits.device.type == "cpu":
        # Twenty times as fast as torch's, which looks at one value at a time there.
        return torch.from_numpy(logits.float().numpy().argmax(axis=-1))
    return logits.argmax(dim=-1)


def _draw(logits: torch.Tensor, rows: Sequence[RowSampling], cut: bool) -> torch.Tensor:
    device = logits.device
    uniform = torch.tensor([row.generator.random() for row in rows], device=device)
    temperature = torch.tensor([max(row.temperature, 1e-6) for row in rows], device=device)
    probabilities = torch.softmax(logits.float() / temperature[:, None], dim=-1)
    if not cut:
        return _invert(probabilities.cumsum(dim=-1), uniform)
    top_p = torch.tensor([row.top_p for row in rows], device=device)
    size = logits.shape[-1]
    top_k = torch.tensor([min(row.top_k or size, size) for row in rows], device=device)
    tokens, enough = _draw_from_best(probabilities, uniform, top_p, top_k, FIRST_CANDIDATES)
    if not bool(enough.all()):
        few = ~enough
        tokens[few] = _draw_from_best(
            probabilities[few], uniform[few], top_p[few], top_k[few], size
        )[0]
    return tokens


def _draw_from_best(
    probabilities: torch.Tensor,
    uniform: torch.Tensor,
    top_p: torch.Tensor,
    top_k: torch.Tensor,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [rows] drawn from the best `count`, and whether these held all that is kept."""
    count = min(count, probabilities.shape[-1])
    ordered, tokens = probabilities.topk(count, dim=-1)
    ranks = torch.arange(count, device=probabilities.device)
    whole_vocabulary = top_k == probabilities.shape[-1]
    ordered = ordered.masked_fill(ranks >= top_k[:, None], 0.0)
    reached = ordered.cumsum(dim=-1)
    # Of what top-k keeps; without it, of everything.
    total = torch.where(whole_vocabulary, probabilities.sum(dim=-1), reached[:, -1])
    limit = (top_p * total)[:, None]
    # The most probable token is always kept, whatever top-p is.
    kept = ordered.masked_fill((reached - ordered >= limit) & (ranks > 0), 0.0)
    drawn = tokens.gather(-1, _invert(kept.cumsum(dim=-1), uniform)[:, None]).squeeze(-1)
    everything = count == probabilities.shape[-1]
    top_p_reached = whole_vocabulary & (reached[:, -1] >= limit[:, 0])
    return drawn, (top_k <= count) | top_p_reached | everything


def _invert(cumulative: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative weight exceeds the drawn share of the total.

    Rounded, the share may be all of it: then the last index that has a weight.
    """
    total = cumulative[:, -1:].contiguous()
    index = torch.searchsorted(cumulative, uniform[:, None] * total, right=True)
    return torch.minimum(index, torch.searchsorted(cumulative, total)).squeeze(-1)
