"""How sure a mean of shares is: Wilson's interval, and the percentile bootstrap.

Of flags, the score interval of Wilson, "Probable inference, the law of succession, and statistical
inference", JASA 1927: that of twelve right answers of twelve is no point. What else lies in [0, 1]
varies no more than flags of the same mean, so that it holds for a few of any such values, and is
wide. Of more, the percentile bootstrap (Efron & Tibshirani 1993, ch. 13).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 2000
LEVEL = 0.95
Z = 1.959964
"""The normal quantile of `LEVEL`, two-sided."""
FEW = 20
"""Of fewer values a bootstrap knows too little: it draws what it has."""
_DRAWS_AT_ONCE = 1 << 18


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` in [0, 1], at least one; the same for a seed."""
    if not len(values):
        raise ValueError("there is no value to tell the mean of")
    found = np.asarray(values, dtype=np.float64)
    if len(found) < FEW or np.isin(found, (0, 1)).all() or np.ptp(found) == 0:
        return _wilson(float(found.mean()), len(found))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(_resampled_means(found, seed), [tail, 1 - tail])
    return float(low), float(high)


def _wilson(mean: float, num: int) -> tuple[float, float]:
    share = Z**2 / num
    middle = (mean + share / 2) / (1 + share)
    half = math.sqrt(mean * (1 - mean) * share + share**2 / 4) / (1 + share)
    return max(0.0, middle - half), min(1.0, middle + half)


def _resampled_means(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    means = np.empty(NUM_RESAMPLES)
    at_once = max(1, _DRAWS_AT_ONCE // len(values))
    for start in range(0, NUM_RESAMPLES, at_once):
        part = means[start : start + at_once]
        part[:] = values[rng.integers(0, len(values), (len(part), len(values)))].mean(axis=1)
    return means
