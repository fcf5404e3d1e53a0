"""Is it the challenger, or who got it? Evidence that takes all answers of a person for one draw.

Assignment sticks to people, so that whoever fails or waits often does so in one arm alone, however
many answers that is. Scores that do not hang on the arm are summed over each person. With T the sum
over the challenger's people, exp(λ T) over its mean under all ways to deal the people has mean 1
without a difference: the permutation e-value of `flows.decisions.ranks`, with people dealt in the
place of answers. λ and the weights may hang on anything but the dealing.

It holds at any one look, and is no e-process: it stands beside one, and both must agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from flows.decisions.sequential import Array, Flags

STAKES = (2.0, 3.0, 4.0, 6.0)
"""λ, in standard deviations of T."""
ALIKE = 0.1
"""How much of what becomes of an answer is taken to hang on the person. It only weighs people."""
WINDOWS = (1, 2, 4)
"""All answers, the later half, the last quarter: what breaks late is not lost among the good."""


@dataclass(frozen=True)
class Units:
    """Of each answer, in their order: who got it, and the challenger's share of people then."""

    unit: npt.NDArray[np.uint64]
    share: Array

    def of(self, which: Flags | slice | npt.NDArray[np.intp]) -> Units:
        """Of some of the answers."""
        return Units(self.unit[which], self.share[which])


def people_log_e(people: Units, treated: Flags, scores: Array) -> float:
    """ln of the e-value against "scores are no higher where the challenger answers"."""
    num = len(scores)
    later = [slice(num - num // part, None) for part in WINDOWS]
    found = [_log_e(people.of(part), treated[part], scores[part]) for part in later]
    return float(logsumexp(found)) - math.log(len(found))


def _log_e(people: Units, treated: Flags, scores: Array) -> float:
    if not len(scores):
        return 0.0
    unit = np.unique(people.unit, return_inverse=True)[1]
    weight = 1 / (1 + ALIKE * (np.bincount(unit) - 1))[unit]
    scores = weight * (scores - np.average(scores, weights=weight))
    dealt, chance = _ways(unit, people.share, scores)
    variance = float((dealt**2 @ chance - (dealt @ chance) ** 2).sum())
    if variance <= 0:
        return 0.0
    own = float(scores[treated].sum())
    rates = [stake / math.sqrt(variance) for stake in STAKES]
    found = [rate * own - logsumexp(rate * dealt, b=chance, axis=1).sum() for rate in rates]
    return float(logsumexp(found)) - math.log(len(found))


def _ways(unit: npt.NDArray[np.intp], share: Array, scores: Array) -> tuple[Array, Array]:
    """What each person adds to T in each way to be dealt, (people, ways), and their chances.

    Shares grow, and whoever has the challenger at one of them has it at every larger one.
    """
    levels, level = np.unique(share, return_inverse=True)
    ways = len(levels) + 1
    sums = np.bincount(unit * ways + level, weights=scores, minlength=(unit.max() + 1) * ways)
    dealt: Array = np.cumsum(sums.reshape(-1, ways)[:, ::-1], axis=1)[:, ::-1].astype(np.float64)
    return dealt, np.diff(levels, prepend=0, append=1)
