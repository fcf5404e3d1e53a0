"""What the noise on averaged updates promises: an exact (ε, δ) for the Gaussian mechanism.

A site's whole contribution to a round is clipped to norm C, and noise of standard deviation
z·C is added to the sum. All sites take part in every round, so that nothing is gained by
sampling: T rounds compose to one Gaussian mechanism of noise z / √T, whose δ at any ε is known
in closed form (Balle & Wang 2018, arXiv:1805.06530, theorem 8; composition: Dong, Roth & Su
2019, arXiv:1905.02383, corollary 3.3). No accountant gives a smaller ε.

Protected is whether a site's step was counted or left out, their number being known. With which of
two steps a site took part is a difference of up to 2C: as protected as by half the noise. Not
protected is a single person within a site, of whom a site's own adapter may still tell, nor what is
told beside the averages: counts and losses.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr

_MAX_EPSILON = 1e6


def delta_of(epsilon: float, *, noise_multiplier: float, num_rounds: int) -> float:
    """The smallest δ at `epsilon` ≥ 0: Φ(−ε/μ + μ/2) − exp(ε) Φ(−ε/μ − μ/2), μ = √T / z."""
    mu = math.sqrt(num_rounds) / noise_multiplier
    first = float(log_ndtr(-epsilon / mu + mu / 2))
    second = epsilon + float(log_ndtr(-epsilon / mu - mu / 2))
    return math.exp(first) * -math.expm1(min(0.0, second - first))


def epsilon_of(*, noise_multiplier: float, num_rounds: int, delta: float) -> float:
    """The smallest ε at `delta` after `num_rounds`; infinite without noise.

    ValueError where `delta` is not between 0 and 1.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, not {delta}")
    if noise_multiplier == 0:
        return math.inf

    def excess(epsilon: float) -> float:
        return delta_of(epsilon, noise_multiplier=noise_multiplier, num_rounds=num_rounds) - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
        if high > _MAX_EPSILON:
            return math.inf
    return float(brentq(excess, 0.0, high, xtol=1e-9))
