"""Fits the quality scorer on feedback: a calibrated logistic model of "people like this".

L2-regularised logistic regression on the features of `registry.features`, by L-BFGS (scipy);
calibrated (`training.calibration`) on scores that no row's own user had a part in. Whether it may
serve is decided by models of earlier ratings, each tried on what other users said later; the
scorer that serves is then fitted in the same way on all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from scipy import optimize, sparse, special

from registry.features import NUM_HASHED, NUMBERS, Features, Floats, Sample, extract
from registry.scorer import Scorer
from training.calibration import calibrated, curve, platt
from training.discrimination import Discrimination, discrimination
from training.errors import DataError

Booleans = npt.NDArray[np.bool_]

PENALTY = 0.1
"""Strength of the L2 penalty on hashed weights, against the summed loss."""
NUMBER_PENALTY = 1.0
"""The same on the weights of numbers."""
MAX_ITERATIONS = 100
NUM_FOLDS = 5
LATE_SHARE = 0.4
"""Of the ratings, by time: what the gate's models are tried on."""


@dataclass(frozen=True, kw_only=True)
class Rating:
    """What one person thought of one answer."""

    sample: Sample
    liked: bool
    user: str
    """Whoever rated; ratings of one user are never on both sides of a split."""
    at: datetime
    weight: float = 1.0
    """How much the rater is trusted; 0 leaves the rating out."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A scorer and what is known of it."""

    scorer: Scorer
    held_out: Discrimination | None
    """Of models of earlier ratings, on later ones of other users; None where those are too few."""
    rule_held_out: Discrimination | None
    """Of what scored before, on the same ratings."""
    conversations_held_out: Discrimination | None
    """As `held_out`, of turns of conversations, which the others leave out."""
    cross_fitted: Discrimination
    """Of models that had no part of the user whom they score."""
    num_ratings: int
    features: tuple[Features, ...]
    """Of the answers that it was fitted on."""


def fit(ratings: Sequence[Rating], *, rule: Sequence[float]) -> Fitted:
    """Fit, calibrate and try a scorer; `rule` scores the same answers, for comparison.

    The same ratings give the same scorer. Raises `DataError` where only one opinion is there,
    or all ratings are of fewer than `NUM_FOLDS` users.
    """
    kept = [place for place, rating in enumerate(ratings) if rating.weight > 0]
    ratings = [ratings[place] for place in kept]
    rules = np.array([rule[place] for place in kept])
    data = Data.of(ratings)
    if len(set(data.users)) < NUM_FOLDS or len(set(data.liked.tolist())) < 2:
        raise DataError(
            f"{len(ratings)} ratings of {len(set(data.users))} people, {int(data.liked.sum())} of "
            f"them good: a scorer needs both opinions, of {NUM_FOLDS} people at least"
        )
    gate = _try_out(data, rules)
    margins = _cross_fitted(data, np.ones(len(ratings), bool))
    slope, offset = platt(margins, data.liked, data.weights)
    sigmoid = special.expit(slope * margins + offset)
    knots = curve(sigmoid, data.liked, data.weights)
    scorer = _to_scorer(data, _fit_weights(data), slope=slope, offset=offset, knots=knots)
    return Fitted(
        scorer=scorer,
        held_out=gate[0],
        rule_held_out=gate[1],
        conversations_held_out=gate[2],
        cross_fitted=discrimination(_cross_calibrated(sigmoid, data), data.liked, data.weights),
        num_ratings=len(ratings),
        features=data.features,
    )


@dataclass(frozen=True)
class Data:
    """Ratings as arrays of n rows."""

    features: tuple[Features, ...]
    words: sparse.csr_array
    """(n, NUM_HASHED)"""
    numbers: Floats
    """(n, len(NUMBERS))"""
    liked: Booleans
    weights: Floats
    users: tuple[str, ...]
    times: Floats
    """Seconds."""

    @classmethod
    def of(cls, ratings: Sequence[Rating]) -> Data:
        """The arrays of `ratings`, in their order."""
        features = tuple(extract(rating.sample) for rating in ratings)
        return cls(
            features=features,
            words=hashed_matrix(features),
            numbers=np.array([each.numbers for each in features]).reshape(-1, len(NUMBERS)),
            liked=np.array([rating.liked for rating in ratings], bool),
            weights=np.array([rating.weight for rating in ratings], float),
            users=tuple(rating.user for rating in ratings),
            times=np.array([rating.at.timestamp() for rating in ratings]),
        )

    def part(self, rows: Booleans) -> Data:
        """The rows where `rows` is true."""
        chosen = np.flatnonzero(rows)
        return Data(
            features=tuple(self.features[row] for row in chosen),
            words=self.words[chosen],
            numbers=self.numbers[chosen],
            liked=self.liked[chosen],
            weights=self.weights[chosen],
            users=tuple(self.users[row] for row in chosen),
            times=self.times[chosen],
        )


@dataclass(frozen=True)
class _Weights:
    words: Floats
    numbers: Floats
    bias: float
    means: Floats
    scales: Floats

    def margins(self, data: Data) -> Floats:
        numbers = (data.numbers - self.means) / self.scales
        found: Floats = data.words @ self.words + numbers @ self.numbers + self.bias
        return found


def hashed_matrix(features: Sequence[Features]) -> sparse.csr_array:
    """(n, NUM_HASHED) the names of each row at their hashed places; names that share one add up."""
    indices = [each.indices for each in features]
    sizes = [len(row) for row in indices]
    values = [np.full(len(row), each.value) for row, each in zip(indices, features, strict=True)]
    return sparse.csr_array(
        (
            np.concatenate([np.zeros(0), *values]),
            np.concatenate([np.zeros(0, np.int64), *indices]),
            np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
        ),
        shape=(len(features), NUM_HASHED),
    )


def _fit_weights(data: Data) -> _Weights:
    means = data.numbers.mean(axis=0)
    spread = data.numbers.std(axis=0)
    scales = np.where(spread > 1e-9, spread, 1.0)
    # Only the places that occur, since the others stay at 0.
    places = np.unique(data.words.indices)
    flat = _minimise(data.words[:, places], (data.numbers - means) / scales, data)
    words = np.zeros(NUM_HASHED)
    words[places] = flat[: len(places)]
    return _Weights(words, flat[len(places) : -1], float(flat[-1]), means, scales)


def _minimise(words: sparse.csr_array, numbers: Floats, data: Data) -> Floats:
    """Weights of the words, then of the numbers, then the bias."""
    num_words = words.shape[1]
    signs = np.where(data.liked, 1.0, -1.0)
    transposed = words.T.tocsr()

    def loss(flat: Floats) -> tuple[float, Floats]:
        hashed, dense, bias = flat[:num_words], flat[num_words:-1], flat[-1]
        odds = signs * (words @ hashed + numbers @ dense + bias)
        pull = -data.weights * signs * special.expit(-odds)
        value = data.weights @ np.logaddexp(0, -odds)
        value += 0.5 * (PENALTY * hashed @ hashed + NUMBER_PENALTY * dense @ dense)
        gradient = [
            transposed @ pull + PENALTY * hashed,
            numbers.T @ pull + NUMBER_PENALTY * dense,
            [pull.sum()],
        ]
        return float(value), np.concatenate(gradient)

    start = np.zeros(num_words + numbers.shape[1] + 1)
    found: Floats = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS}
    ).x
    return found


def _to_scorer(
    data: Data, fitted: _Weights, *, slope: float, offset: float, knots: Floats
) -> Scorer:
    seen = np.bincount(data.words.indices, minlength=NUM_HASHED).clip(max=2).astype(float)
    return Scorer(
        weights=fitted.words,
        seen=seen,
        number_weights=fitted.numbers,
        means=fitted.means,
        scales=fitted.scales,
        calibration=np.array([fitted.bias, slope, offset]),
        knots=knots,
        kinds=np.ones(2),
    )


def _cross_fitted(data: Data, learned: Booleans) -> Floats:
    """(n,) margins by models that saw only `learned` rows, and none of the row's user."""
    folds = _folds(data.users)
    margins = np.zeros(len(folds))
    for fold in range(NUM_FOLDS):
        inside = folds == fold
        others = learned & ~inside
        if inside.any() and others.any():
            model = _fit_weights(data.part(others))
            margins[inside] = model.margins(data.part(inside))
    return margins


def _cross_calibrated(sigmoid: Floats, data: Data) -> Floats:
    """(n,) chances on curves that no rating of the row's user had a part in."""
    folds = _folds(data.users)
    chances = np.zeros(len(folds))
    for fold in range(NUM_FOLDS):
        inside = folds == fold
        if inside.any():
            others = data.part(~inside)
            knots = curve(sigmoid[~inside], others.liked, others.weights)
            chances[inside] = calibrated(sigmoid[inside], knots)
    return chances


Trial = tuple[Discrimination | None, Discrimination | None, Discrimination | None]


def _try_out(data: Data, rules: Floats) -> Trial:
    """Models of early ratings on late ones of other users, the rule on the same; conversations."""
    late = data.times > np.quantile(data.times, 1 - LATE_SHARE)
    early, tried = data.part(~late), data.part(late)
    if min(_fewest(early), _fewest(tried)) < 2 or len(set(early.users)) < NUM_FOLDS:
        return None, None, None
    margins = _cross_fitted(data, ~late)
    slope, offset = platt(margins[~late], early.liked, early.weights)
    sigmoid = special.expit(slope * margins + offset)
    knots = curve(sigmoid[~late], early.liked, early.weights)
    chances = calibrated(sigmoid[late], knots)
    chats = tried.numbers[:, NUMBERS.index("conversation")] > 0

    def of(scores: Floats, rows: Booleans) -> Discrimination | None:
        part = tried.part(rows)
        if _fewest(part) < 2:
            return None
        return discrimination(scores[rows], part.liked, part.weights)

    return of(chances, ~chats), of(rules[late], ~chats), of(chances, chats)


def _fewest(data: Data) -> int:
    """How many ratings hold the rarer opinion."""
    return min(int(data.liked.sum()), int((~data.liked).sum()))


def _folds(users: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,) the fold of each row, users spread evenly over all."""
    order = {user: place for place, user in enumerate(sorted(set(users), key=_position))}
    return np.array([order[user] % NUM_FOLDS for user in users], np.int64)


def _position(user: str) -> float:
    """[0, 1) by hash: the same in every run."""
    return int(hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()[:13], 16) / 16**13
