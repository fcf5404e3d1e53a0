"""Is one arm slower? Bets on ranks within blocks of consecutive answers of both arms.

Where who gives an answer is drawn for each, without a difference every way to deal the ranks of
a block to its answers is equally likely, however the load moves from block to block. For a
statistic S that grows with the treatment's ranks, exp(S) over its mean under all those ways
has therefore mean 1, and mean at most 1 where the treatment is faster: a permutation e-value,
in the sense of Ramdas & Wang, "Hypothesis testing with e-values" (2025, arXiv 2410.23614). It is
drawn for each person: `flows.decisions.people` tells what that takes besides.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy.stats import norm

from flows.decisions.sequential import Array, Flags

NORMAL, SAVAGE, SLOWEST = "normal", "savage", "slowest"
"""Scores of ranks: best for a shift of the logarithm, for long tails, for rare long waits."""
BETS = ((NORMAL, 0.4), (NORMAL, 0.8), (SAVAGE, 0.5), (SLOWEST, 2.0))
"""Which scores are bet on, and how much."""


@cache
def tilts(size: int) -> tuple[tuple[Array, Array], ...]:
    """Of each bet: the tilted scores of the ranks 1 … `size`, and ln of their mean.

    The latter by the number of treated answers in a block, 0 … `size`: elementary symmetric
    polynomials over binomial coefficients.
    """
    rank = np.arange(1, size + 1)
    scores = {
        NORMAL: norm.ppf(rank / (size + 1)),
        SAVAGE: np.cumsum(1 / rank[::-1]) - 1,
        SLOWEST: (rank == size).astype(np.float64),
    }
    found = []
    for name, stake in BETS:
        tilted = stake * scores[name]
        sums = np.zeros(size + 1)
        sums[0] = 1
        for weight in np.exp(tilted):
            sums[1:] += weight * sums[:-1]
        ways = np.array([math.comb(size, num) for num in range(size + 1)], dtype=np.float64)
        found.append((tilted, np.log(sums / ways)))
    return tuple(found)


def rank_log_es(treated: Flags, values: Array) -> Array:
    """ln of each bet's e-value of each block, (bets, …), of (…, block size) answers.

    Against "the treatment's values are no larger". Of equal values the treatment's rank lower.
    """
    first = np.argsort(~treated, axis=-1, kind="stable")
    values = np.take_along_axis(values, first, -1)
    order = np.argsort(values, axis=-1, kind="stable")
    ranked = np.take_along_axis(np.take_along_axis(treated, first, -1), order, -1)
    num = ranked.sum(axis=-1)
    return np.stack([ranked @ tilted - mean[num] for tilted, mean in tilts(treated.shape[-1])])


def normal_scores(values: Array) -> Array:
    """Of (…, block size) values, the normal quantiles of their ranks within the blocks."""
    rank = np.argsort(np.argsort(values, axis=-1), axis=-1) + 1
    found: Array = norm.ppf(rank / (values.shape[-1] + 1))
    return found
