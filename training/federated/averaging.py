"""One round's average: what comes of the adapters that sites bring back."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri

from training.federated.updates import LowRank, Update, norm, recompressed, weighted_sum

Randomness = Callable[[int], bytes]
"""So many random bytes. Whoever can repeat them can take the noise away again: what is used in
earnest is the operating system's, and is kept nowhere."""


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """How adapters are averaged."""

    max_rank: int | None = None
    """Rank of the average; None keeps every direction, so that ranks grow with the sites."""
    clip_norm: float | None = None
    """Longest step that a site may make in a round, as the Frobenius norm over all layers."""
    noise_multiplier: float = 0.0
    """Standard deviation of the noise on the sum of steps, as a multiple of clip_norm."""
    delta: float = 1e-5
    """The δ at which ε is told."""

    def __post_init__(self) -> None:
        if self.noise_multiplier < 0 or not math.isfinite(self.noise_multiplier):
            raise ValueError(f"noise_multiplier must not be below 0: {self.noise_multiplier}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, not {self.clip_norm}")
        if self.noise_multiplier and self.clip_norm is None:
            raise ValueError("noise_multiplier needs clip_norm: noise hides what is bounded")
        if self.noise_multiplier and self.max_rank is None:
            raise ValueError("noise_multiplier needs max_rank: noise is of full rank")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie between 0 and 1, not {self.delta}")


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What a site brings back: its adapter and a count, nothing else."""

    update: Update
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class Average:
    """What came of a round."""

    update: Update
    lost: float
    """Share of the squared norm that the lower rank could not hold."""
    num_clipped: int
    """Sites whose step was shortened."""


def average(
    before: Update | None,
    contributions: Sequence[Contribution],
    settings: Averaging,
    *,
    randomness: Randomness = os.urandom,
) -> Average:
    """FedAvg (McMahan et al. 2017, arXiv:1602.05629) of what the sites made of `before`.

    Sites weigh as many samples as they have. With noise each weighs the same, since counts
    would tell of them (DP-FedAvg, McMahan et al. 2018, arXiv:1710.06963, with a fixed
    denominator). `before` is None where they began from the bare base.
    """
    if settings.clip_norm is None:
        total = sum(one.num_samples for one in contributions)
        shares = [one.num_samples / total for one in contributions]
        summed = weighted_sum([one.update for one in contributions], shares)
        update, lost = recompressed(summed, max_rank=settings.max_rank)
        return Average(update=update, lost=lost, num_clipped=0)
    steps = [_step(before, one.update) for one in contributions]
    scales = [min(1.0, settings.clip_norm / max(norm(step), 1e-12)) for step in steps]
    weights = _weights(contributions, settings)
    parts = [*steps] if before is None else [before, *steps]
    factors = [weight * scale for weight, scale in zip(weights, scales, strict=True)]
    summed = weighted_sum(parts, factors if before is None else [1.0, *factors])
    if settings.noise_multiplier:
        deviation = settings.noise_multiplier * settings.clip_norm / len(contributions)
        summed = _noisy(summed, deviation, randomness)
    update, lost = recompressed(summed, max_rank=settings.max_rank)
    return Average(update=update, lost=lost, num_clipped=sum(scale < 1 for scale in scales))


def _weights(contributions: Sequence[Contribution], settings: Averaging) -> list[float]:
    if settings.noise_multiplier:
        return [1 / len(contributions)] * len(contributions)
    total = sum(one.num_samples for one in contributions)
    return [one.num_samples / total for one in contributions]


def _step(before: Update | None, after: Update) -> Update:
    return after if before is None else weighted_sum([after, before], [1.0, -1.0])


def _noisy(update: Update, deviation: float, randomness: Randomness) -> Update:
    """`update` with noise on every weight of every layer; each layer is held whole in turn."""
    found = {}
    for name, layer in update.items():
        dense = layer.b @ layer.a
        noise = _normal(dense.numel(), randomness).reshape(dense.shape).to(dense.dtype)
        u, s, vt = torch.linalg.svd(dense + deviation * noise, full_matrices=False)
        found[name] = LowRank(u * s, vt)
    return found


def _normal(num: int, randomness: Randomness) -> torch.Tensor:
    """Standard normal numbers. torch's own generator has but 2**32 seeds: they can be tried."""
    bits = np.frombuffer(randomness(8 * num), dtype=np.uint64) >> np.uint64(12)
    return torch.from_numpy(ndtri((bits + 0.5) / 2**52))
