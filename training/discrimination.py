"""How well chances tell liked answers from others: AUC, Brier score, calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from registry.features import Floats

NUM_BINS = 10


@dataclass(frozen=True)
class Discrimination:
    """Figures of scores against opinions."""

    auc: float
    """Chance that a liked answer scores above another one; 0.5 says nothing."""
    auc_error: float
    """Standard error of it, after Hanley and McNeil (1982)."""
    brier: float
    """Mean squared distance between score and opinion."""
    calibration_error: float
    """Mean distance between score and share liked, over ten bins of equal size."""
    num_liked: int
    num_other: int


def discrimination(scores: Floats, liked: npt.NDArray[np.bool_], weights: Floats) -> Discrimination:
    """The figures of `scores`, both opinions being there; `weights` count in all but the AUC."""
    num_liked, num_other = int(liked.sum()), int((~liked).sum())
    found = auc(scores, liked)
    return Discrimination(
        auc=found,
        auc_error=_auc_error(found, num_liked, num_other),
        brier=float(np.average((scores - liked) ** 2, weights=weights)),
        calibration_error=_calibration_error(scores, liked),
        num_liked=num_liked,
        num_other=num_other,
    )


def auc(scores: Floats, liked: npt.NDArray[np.bool_]) -> float:
    """The area under the ROC curve, ties counting half (the Mann-Whitney statistic)."""
    ranks = stats.rankdata(scores)
    num_liked, num_other = int(liked.sum()), int((~liked).sum())
    above = ranks[liked].sum() - num_liked * (num_liked + 1) / 2
    return float(above / (num_liked * num_other))


def _auc_error(found: float, num_liked: int, num_other: int) -> float:
    q1, q2 = found / (2 - found), 2 * found**2 / (1 + found)
    variance = (
        found * (1 - found) + (num_liked - 1) * (q1 - found**2) + (num_other - 1) * (q2 - found**2)
    ) / (num_liked * num_other)
    return float(np.sqrt(max(0.0, variance)))


def _calibration_error(scores: Floats, liked: npt.NDArray[np.bool_]) -> float:
    order = np.argsort(scores, kind="stable")
    bins = np.array_split(order, min(NUM_BINS, len(order)))
    gaps = [abs(scores[rows].mean() - liked[rows].mean()) * len(rows) for rows in bins]
    return float(sum(gaps) / len(order))
