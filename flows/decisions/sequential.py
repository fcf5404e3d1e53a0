"""Statistics that stay valid however often one looks. All of them take arrays, and broadcast.

A fixed-sample test looked at every 15 minutes promotes by chance; these do not:

* `margin`: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas,
  "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics
  2024 (arXiv 2103.06476), theorem 2.2, in intrinsic time: the margin depends on the estimate's
  own variance, so that clustered answers count for what they tell;
* `log_e_worse`: its other face, the Gaussian mixture e-process, one-sided;
* `two_rates_log_e`: the block e-variables of Turner, Ly & Grünwald, "Generic E-variables for
  exact sequential k-sample tests that allow for optional stopping", JSPI 2024 (arXiv
  2106.02693), theorem 1: exact, whatever the common rate of each block;
* `restarted`: e-processes begun again and again, as the e-detectors of Shin, Ramdas & Rinaldo
  (NEJSDS 2024, arXiv 2203.03532), but with stakes that add up to one;
* `split_log_e`: the beta-binomial test of a traffic split, Lindon & Malek, "Anytime-valid
  inference for multinomial count data", NeurIPS 2022 (arXiv 2011.03567).

Ville's inequality turns each e-process into an alarm: it passes 1/α with probability ≤ α, ever.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, lambertw, log_ndtr

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A difference with bounds that hold at all times at once."""

    estimate: float
    lower: float
    upper: float


def tightest_at(alpha: float) -> float:
    """nρ² at which the margin is narrowest: r = -1 - W₋₁(-α²/e), about 8.2 at α = 0.05.

    Found by setting the derivative of (r + 1)/r · (ln(r + 1) - 2 ln α) to zero.
    """
    return float(-lambertw(-(alpha**2) / math.e, -1).real - 1)


def margin(variance: Array, progress: Array, *, alpha: float) -> Array:
    """Half the width of the confidence sequence at level 1 - `alpha`, two-sided.

    `variance`: of the estimate, as it stands. `progress`: nρ², the information gathered in
    units fixed before the experiment. The paper's σ √(2 (nρ² + 1) / (n²ρ²) · ln(√(nρ² + 1) / α))
    with σ²/n = `variance`.
    """
    scaled = progress + 1
    bound: Array = np.sqrt(variance * scaled / progress * (np.log(scaled) - 2 * math.log(alpha)))
    return bound


def log_e_worse(z: Array, progress: Array) -> Array:
    """Logarithm of the mixture e-process against "the mean is at most zero".

    `z`: estimate over its standard error. The mixture is over positive drifts (half-normal):
    ln E = ln 2 - ½ ln(r + 1) + z² r / (2 (r + 1)) + ln Φ(z √(r / (r + 1))).
    """
    fraction = progress / (progress + 1)
    log_e: Array = (
        math.log(2)
        - 0.5 * np.log(progress + 1)
        + 0.5 * z**2 * fraction
        + log_ndtr(z * np.sqrt(fraction))
    )
    return log_e


ODDS_RATIOS = (2.0, 5.0, 12.0, 30.0)
"""How much more often the challenger may fail: the alternatives that are bet on."""


def two_rates_log_e(
    hits: Array, num: Array, control_hits: Array, control_num: Array, *, rate: Array, odds: float
) -> Array:
    """Logarithm of one block's e-variable against "the treatment's rate is no higher".

    `rate`: what is bet that the control's rate is, from the past alone; `odds`: by how much the
    treatment's odds are bet to be higher. 0 where the block has only one arm. With
    θ₀ = `rate`, θ₁ of `odds` times its odds and θ = (n₁θ₁ + n₀θ₀)/n, it is the likelihood at
    (θ₁, θ₀) over the one at (θ, θ), whose mean is at most 1 by the inequality of means.
    """
    raised = odds * rate / (1 - rate + odds * rate)
    total = np.maximum(num + control_num, 1)
    pooled = (num * raised + control_num * rate) / total
    pooled = np.where(num + control_num > 0, pooled, rate)
    log_e: Array = (
        hits * np.log(raised / pooled)
        + (num - hits) * np.log((1 - raised) / (1 - pooled))
        + control_hits * np.log(rate / pooled)
        + (control_num - control_hits) * np.log((1 - rate) / (1 - pooled))
    )
    return log_e


LOST = -2.0
"""ln of what is left of a stake when the next one is set."""


class Restarted:
    """ln of the wealth of e-processes that are begun anew when they have lost, step by step.

    The k-th start (k = 1, 2, …) stakes 1/(k (k + 1)) of the wealth, which adds up to one however
    often there is a start: the sum is an e-process. What breaks after a good day is found soon,
    since its evidence need not first make up for all that was lost while all was well.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Of so many, side by side; they begin with a stake of a half."""
        self.wealth: Array = np.full(shape, -math.log(2))
        self._latest: Array = np.zeros(shape)
        self._starts: Array = np.ones(shape)

    def step(self, log_es: Array) -> None:
        """One more e-value each; 0 where there was none."""
        self.wealth = self.wealth + log_es
        self._latest = self._latest + log_es
        lost = self._latest < LOST
        if not lost.any():
            return
        self._starts = self._starts + lost
        self._latest = np.where(lost, 0, self._latest)
        stake = -np.log(self._starts * (self._starts + 1))
        self.wealth = np.where(lost, np.logaddexp(self.wealth, stake), self.wealth)


def restarted(log_es: Array) -> Array:
    """The course of the wealth of a `Restarted`, along the last axis."""
    state, course = Restarted(log_es.shape[:-1]), np.empty_like(log_es)
    for number in range(log_es.shape[-1]):
        state.step(log_es[..., number])
        course[..., number] = state.wealth
    return course


def split_log_e(
    treated: Array, num: Array, *, share: Array | float, concentration: float = 100.0
) -> Array:
    """ln of the e-process of `treated` of `num` units against "each with probability `share`".

    A mixture over Beta(k q, k (1 - q)), k = `concentration`, q = `share`.
    """
    a, b = concentration * np.asarray(share), concentration * (1 - np.asarray(share))
    mixture = betaln(a + treated, b + num - treated) - betaln(a, b)
    log_e: Array = (
        mixture - treated * np.log(share) - (num - treated) * np.log1p(-np.asarray(share))
    )
    return log_e


def mixed(log_es: Sequence[Array]) -> Array:
    """ln of the mean of several e-processes, which is one again."""
    found: Array = np.logaddexp.reduce(np.stack(log_es), axis=0) - math.log(len(log_es))
    return found
