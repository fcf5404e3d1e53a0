"""How sure a share or a mean is: percentile bootstrap (Efron & Tibshirani 1993, ch. 13)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 2000
LEVEL = 0.95
_DRAWS_AT_ONCE = 1 << 18


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of `values`, at least one; the same for the same seed."""
    found = _resampled_means(np.asarray(values, dtype=np.float64), seed)
    return _middle(found)


def paired_interval(
    before: Sequence[float], after: Sequence[float], *, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the mean of `after` − `before`, question by question.

    Two versions answer the same questions, of which some are easy for both: paired, the
    interval is much narrower than that of two independent means.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} answers cannot be paired with {len(after)}")
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return _middle(_resampled_means(difference, seed))


def _resampled_means(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    if not len(values):
        raise ValueError("there is no value to resample")
    rng = np.random.default_rng(seed)
    means = np.empty(NUM_RESAMPLES)
    at_once = max(1, _DRAWS_AT_ONCE // len(values))
    for start in range(0, NUM_RESAMPLES, at_once):
        part = means[start : start + at_once]
        part[:] = values[rng.integers(0, len(values), (len(part), len(values)))].mean(axis=1)
    return means


def _middle(means: npt.NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
