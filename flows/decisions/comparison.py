"""Compares two arms of people: the difference of the composite, and how sure it is.

Assignment is by user, so a user's answers are one draw: the variance is summed over users
(Liang & Zeger 1986), also where a user has moved from one arm to the other. The challenger's
share changes on the way, so arms are compared within each period of one share, and the
periods' differences are combined with weights that hang on counts alone (Mantel & Haenszel
1959): what drifts in both arms cancels.

All functions take arrays with any leading dimensions, so that the benchmark's thousands of
simulated experiments run through the same code.
"""

import math
from dataclasses import dataclass

import numpy as np

from flows.decisions.sequential import Array

SCORED, QUALITY, RATED, POSITIVE, NEGATIVE, RATED_SCORED, RATED_QUALITY, RATED_PRIOR = range(8)
"""What is summed of a user's answers: how many have a quality score, the sum of the scores, how
many are rated, liked, disliked; of those rated, how many have a score, and its sum; and how many
are rated times what the user's answers came to before the experiment (`prior`)."""
NUM_SUMS = 8
CONTROL, TREATMENT = 0, 1
QUALITY_WEIGHT, POSITIVE_WEIGHT, LATENCY_WEIGHT = 0.5, 0.3, 0.2
PRIOR_STRENGTH = 5.0
"""Answers, or ratings, of before that are believed as much as the average user's."""
TYPICAL_VARIANCE = 0.03
"""Of one rated answer's composite. It only chooses where the bounds are tightest."""


@dataclass(frozen=True)
class Moments:
    """Sums over answers and over users. K periods, 2 arms, `NUM_SUMS` sums of each."""

    totals: Array
    """(..., K, 2, NUM_SUMS)"""
    cross: Array
    """(..., D, D) with D = K·2·NUM_SUMS: the outer products of every user's own sums, added up."""

    @classmethod
    def of(cls, sums: Array) -> "Moments":
        """Of users' own sums, (users, K, 2, NUM_SUMS)."""
        flat = sums.reshape(len(sums), math.prod(sums.shape[1:]))
        return cls(sums.sum(axis=0), flat.T @ flat)

    def num_users(self, counts: int = RATED) -> Array:
        """(..., 2): how many equally active users each arm is worth, (Σn)²/Σn² (Kish 1965).

        A handful who ask all day are a handful, whatever the number of the others.
        """
        shape = self.totals.shape
        own = self.cross.reshape(*shape, *shape[-3:])[..., counts, :, :, counts]
        squares = np.einsum("...kajb->...kjab", own).sum(axis=(-4, -3))
        both = np.stack([squares[..., arm, arm] for arm in (CONTROL, TREATMENT)], axis=-1)
        total = self.totals[..., counts].sum(axis=-2)
        found: Array = np.where(both > 0, total**2 / np.where(both > 0, both, 1), 0)
        return found


@dataclass(frozen=True)
class Comparison:
    """Treatment minus control; every field has the moments' leading dimensions."""

    estimate: Array
    """Of 0.5·quality + 0.3·positive."""
    variance: Array
    """Of the estimate; infinite where it cannot be told."""
    negative: Array
    """Difference of the shares of ratings that are negative."""
    negative_variance: Array
    quality: Array
    """(..., 2): mean quality of each arm, over the same mixture of periods; nan if unknown."""
    positive: Array
    """(..., 2): share of ratings that are positive, likewise."""
    num_users: Array
    """(..., 2): see `Moments.num_users`."""


def prior(quality: Array, num: Array, positive: Array, rated: Array) -> Array:
    """What each user's answers of before came to, beside the average user's.

    `quality`: sums of `num` scores; `positive` of `rated` ratings. A user with few of them is
    taken for an average one as far (James & Stein 1961), and so is one of whom nothing is known.
    """
    found: Array = QUALITY_WEIGHT * _shrunk(quality, num) + POSITIVE_WEIGHT * _shrunk(
        positive, rated
    )
    return found


def _shrunk(sums: Array, counts: Array) -> Array:
    total = counts.sum(axis=-1, keepdims=True)
    mean = sums.sum(axis=-1, keepdims=True) / np.maximum(total, 1)
    found: Array = (sums - mean * counts) / (counts + PRIOR_STRENGTH)
    return found


def compare(
    moments: Moments,
    *,
    counted: int = RATED,
    use_unrated: bool = True,
    use_prior: bool = True,
) -> Comparison:
    """The difference between the arms. `counted`: which answers tell how many people there are.

    Two things without a true difference are taken out as far as they go with the ratings, each
    with the coefficient of least clustered variance. `use_unrated`: the luck of which answers
    were rated, known from the quality scores of all (prediction-powered inference, Angelopoulos,
    Duchi & Zrnic, PPI++ 2023). `use_prior`: the luck of who got into which arm, known from what
    people said before (CUPED: Deng, Xu, Kohavi & Walker 2013).
    """
    totals = moments.totals
    quality, quality_mean = _contrast(totals, QUALITY, SCORED)
    positive, positive_mean = _contrast(totals, POSITIVE, RATED)
    negative, _ = _contrast(totals, NEGATIVE, RATED)
    rated_quality, _ = _contrast(totals, RATED_QUALITY, RATED_SCORED)
    composite = QUALITY_WEIGHT * (quality if use_unrated else rated_quality)
    composite = composite + POSITIVE_WEIGHT * positive
    lucks: list[Array] = []
    if use_unrated:
        both_known = totals[..., RATED_SCORED].prod(axis=-1).sum(axis=-1) > 0
        lucks.append((rated_quality - quality) * both_known[..., None, None, None])
    if use_prior:
        lucks.append(_contrast(totals, RATED_PRIOR, RATED)[0])
    composite = _without(lucks, composite, quality, moments)
    num_users = moments.num_users(counted)
    return Comparison(
        estimate=_value(composite, totals),
        variance=_variance(composite, moments, num_users, fitted=len(lucks)),
        negative=_value(negative, totals),
        negative_variance=np.maximum(
            _variance(negative, moments, num_users), _least_variance(totals, NEGATIVE, RATED)
        ),
        num_users=num_users,
        quality=quality_mean,
        positive=positive_mean,
    )


def progress(variance: Array, *, tuned_for: float, tightest: float) -> Array:
    """nρ² of the confidence sequence: `tightest` once `tuned_for` rated answers' worth is known.

    `tuned_for`: n₁n₀/(n₁ + n₀) of independent rated answers at the first possible decision.
    """
    found: Array = tightest * TYPICAL_VARIANCE / (variance * tuned_for)
    return found


def relative_improvement(comparison: Comparison, slower: Array | float = 0.0) -> Array:
    """0.5·Δquality/quality + 0.3·Δpositive/positive - 0.2·Δp95/p95, the overall score.

    `slower`: Δp95/p95. Where a term is unknown (nan) in either arm, the others weigh as much more
    as it would have weighed. A term whose base is zero counts as nothing.
    """
    terms = (
        (QUALITY_WEIGHT, _relative(comparison.quality)),
        (POSITIVE_WEIGHT, _relative(comparison.positive)),
        (LATENCY_WEIGHT, -np.asarray(slower)),
    )
    known = sum(weight * ~np.isnan(term) for weight, term in terms)
    total = sum(weight * np.nan_to_num(term) for weight, term in terms)
    found: Array = np.divide(total, np.where(known > 0, known, 1))
    return found


def _relative(means: Array) -> Array:
    before, after = means[..., CONTROL], means[..., TREATMENT]
    is_base = before > 0
    found: Array = np.where(is_base, (after - before) / np.where(is_base, before, 1), 0)
    return np.where(np.isnan(before + after), np.nan, found)


def _contrast(totals: Array, sums: int, counts: int) -> tuple[Array, Array]:
    """How each sum enters the difference of two means, (..., K, 2, NUM_SUMS), and the means.

    The difference is linearised: its value is Σ (coefficient of the sum) · sum, and a user's
    influence on it is Σ coefficient · (the user's own sum), which adds up to zero.
    """
    num = totals[..., counts]
    both = num.prod(axis=-1)
    pairs = both / np.maximum(num.sum(axis=-1), 1)
    weight = pairs / np.where(pairs.sum(axis=-1) > 0, pairs.sum(axis=-1), 1)[..., None]
    mean = totals[..., sums] / np.maximum(num, 1)
    sign = np.array([-1.0, 1.0])
    each = sign * weight[..., None] / np.maximum(num, 1)
    coefficients = np.zeros_like(totals)
    coefficients[..., sums] = each
    coefficients[..., counts] = -each * mean
    means = (weight[..., None] * mean).sum(axis=-2)
    known = pairs.sum(axis=-1) > 0
    return coefficients, np.where(known[..., None], means, np.nan)


def _without(lucks: list[Array], composite: Array, scale: Array, moments: Moments) -> Array:
    """`composite` with as little variance as taking out multiples of `lucks` leaves (Gram-Schmidt).

    What varies next to nothing beside `scale` is rounding error, and must not be divided by.
    """
    least = 1e-9 * _covariance(scale, scale, moments)
    taken: list[Array] = []
    for luck in lucks:
        for other in taken:
            luck = luck - _share_of(other, luck, least, moments) * other
        composite = composite - _share_of(luck, composite, least, moments) * luck
        taken.append(luck)
    return composite


def _share_of(luck: Array, form: Array, least: Array, moments: Moments) -> Array:
    spread = _covariance(luck, luck, moments)
    real = spread > least
    share = np.where(real, _covariance(form, luck, moments) / np.where(real, spread, 1), 0)
    found: Array = share[..., None, None, None]
    return found


MEANS_OF = (
    (QUALITY, SCORED),
    (POSITIVE, RATED),
    (NEGATIVE, RATED),
    (RATED_QUALITY, RATED_SCORED),
    (RATED_PRIOR, RATED),
)


def _value(coefficients: Array, totals: Array) -> Array:
    """The difference itself: of the sums alone, since the linear form adds up to zero."""
    found: Array = sum(
        (coefficients[..., sums] * totals[..., sums]).sum(axis=(-1, -2)) for sums, _ in MEANS_OF
    )
    return found


STUDENT = 6.0
"""(z² + 1)/2 at z² = 11, where the bounds usually are: by how much a variance estimated from g
users is to be raised, times 1/g, for the quantiles of Student's t (Cornish & Fisher 1937)."""


def _variance(coefficients: Array, moments: Moments, num_users: Array, *, fitted: int = 0) -> Array:
    """Over users, corrected for their number in the smaller arm and `fitted` coefficients.

    Infinite for less than two users beside those coefficients.
    """
    fewest = num_users.min(axis=-1) - fitted
    raw = _covariance(coefficients, coefficients, moments)
    enough = fewest >= 2
    safe = np.where(enough, fewest, 2)
    grown = (safe + fitted) / (safe - 1) * (1 + STUDENT / safe)
    corrected: Array = np.where(enough, raw * grown, np.inf)
    return corrected


def _least_variance(totals: Array, sums: int, counts: int) -> Array:
    """Of a difference of rates, by Laplace's rule: none of a few is not never."""
    num, hits = totals[..., counts].sum(axis=-2), totals[..., sums].sum(axis=-2)
    rate = (hits + 1) / (num + 2)
    found: Array = (rate * (1 - rate) / np.maximum(num, 1)).sum(axis=-1)
    return found


def _covariance(left: Array, right: Array, moments: Moments) -> Array:
    shape = (*left.shape[:-3], -1)
    carried = left.reshape(shape)[..., None, :] @ moments.cross
    found: Array = (carried[..., 0, :] * right.reshape(shape)).sum(axis=-1)
    return found
