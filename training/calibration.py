"""Chances out of margins: Platt's sigmoid, and a monotone curve over it.

A sigmoid goes to 0 and to 1, but people's ratings do not: where one in ten is fickle, the best
answer of all is liked nine times in ten. The curve follows that: isotonic regression (pool
adjacent violators, Ayer et al. 1955) on the means of groups of equal size, straight between
them, and mixed with a little of the sigmoid, so that the order of scores stays as it is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from registry.features import Floats
from registry.scorer import NUM_KNOTS

Booleans = npt.NDArray[np.bool_]

GROUP = 40
"""Ratings in a group, at least."""
SIGMOID_SHARE = 0.05


def platt(margins: Floats, liked: Booleans, weights: Floats) -> tuple[float, float]:
    """Slope and offset of the sigmoid that makes chances of margins.

    Targets are pulled in from 0 and 1 as Platt (1999) does, so that few ratings make no
    certainty. A slope below 0, from margins that say nothing, becomes 0.
    """
    num_liked, num_other = weights[liked].sum(), weights[~liked].sum()
    targets = np.where(liked, (num_liked + 1) / (num_liked + 2), 1 / (num_other + 2))

    def loss(both: Floats) -> tuple[float, Floats]:
        odds = both[0] * margins + both[1]
        error = weights * (special.expit(odds) - targets)
        value = weights @ (np.logaddexp(0, odds) - targets * odds)
        return float(value), np.array([error @ margins, error.sum()])

    found = optimize.minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]
    )
    return float(found.x[0]), float(found.x[1])


def curve(chances: Floats, liked: Booleans, weights: Floats) -> Floats:
    """(2, NUM_KNOTS) the sigmoid's chances, rising from 0 to 1, and what to make of them."""
    number = int(np.clip(len(chances) // GROUP, 1, NUM_KNOTS - 2))
    order = np.argsort(chances, kind="stable")
    groups = np.array_split(order, number)
    mass = np.array([weights[group].sum() for group in groups])
    places = np.array([weights[group] @ chances[group] for group in groups]) / mass
    liking = np.array([weights[group] @ liked[group] for group in groups])
    # One rating of either kind more: a group of forty proves no certainty.
    risen = optimize.isotonic_regression((liking + 0.5) / (mass + 1), weights=mass).x
    knots = np.concatenate([[0.0], places, np.ones(NUM_KNOTS - 1 - number)])
    means = np.concatenate([[risen[0]], risen, np.full(NUM_KNOTS - 1 - number, risen[-1])])
    return np.stack([knots, (1 - SIGMOID_SHARE) * means + SIGMOID_SHARE * knots])


def calibrated(chances: Floats, knots: Floats) -> Floats:
    """The sigmoid's chances on the curve."""
    found: Floats = np.interp(chances, knots[0], knots[1])
    return found
