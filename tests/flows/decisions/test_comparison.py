"""The comparison of two arms, on sums of users."""

from dataclasses import replace

import numpy as np
import pytest

from flows.decisions import comparison as arms
from flows.decisions.comparison import Moments, compare, prior, relative_improvement


def ratings(
    rng: np.random.Generator,
    num: int,
    *,
    share: float,
    positive: float,
    lift: float = 0.0,
    known: float = 0.0,
    spread: float = 0.15,
) -> np.ndarray:
    """One period of `num` users with 1 to 5 rated answers each: (users, 2, NUM_SUMS).

    `known`: how much of a user's taste was seen before; `spread`: how much people differ.
    """
    sums = np.zeros((num, 2, arms.NUM_SUMS))
    for user in range(num):
        arm = int(rng.random() < share)
        answers = int(rng.integers(1, 6))
        taste = rng.normal(0, spread)
        liked = rng.random(answers) < positive + taste + lift * arm
        quality = rng.normal(0.7, 0.1, answers).sum()
        sums[user, arm] = (
            answers,
            quality,
            answers,
            liked.sum(),
            (~liked).sum(),
            answers,
            quality,
            answers * known * taste,
        )
    return sums


def two_periods(rng: np.random.Generator, *, shares: tuple[float, float], drift: float) -> Moments:
    """Users of a first period, and others of a second, when everything pleases more."""
    first = ratings(rng, 400, share=shares[0], positive=0.5)
    second = ratings(rng, 400, share=shares[1], positive=0.5 + drift)
    both = np.zeros((800, 2, 2, arms.NUM_SUMS))
    both[:400, 0], both[400:, 1] = first, second
    return Moments.of(both)


def test_a_growing_share_and_a_drift_of_both_arms_do_not_look_like_a_difference() -> None:
    rng = np.random.default_rng(1)
    found = [compare(two_periods(rng, shares=(0.1, 0.5), drift=0.3)) for _ in range(60)]
    z = np.array([float(each.estimate / np.sqrt(each.variance)) for each in found])
    assert abs(z.mean()) < 0.5
    naive = []
    for _ in range(60):
        totals = two_periods(rng, shares=(0.1, 0.5), drift=0.3).totals.sum(axis=0)
        rate = totals[:, arms.POSITIVE] / totals[:, arms.RATED]
        naive.append(rate[1] - rate[0])
    assert np.mean(naive) > 0.05  # what pooling all answers would have claimed


def test_the_variance_is_that_of_repeated_experiments() -> None:
    rng = np.random.default_rng(2)
    found = [
        compare(Moments.of(ratings(rng, 300, share=0.5, positive=0.5)[:, None])) for _ in range(200)
    ]
    spread = np.std([float(each.estimate) for each in found])
    claimed = np.sqrt(np.mean([float(each.variance) for each in found]))
    assert claimed == pytest.approx(spread, rel=0.15)


def test_a_few_who_ask_all_day_count_as_few() -> None:
    sums = np.zeros((52, 1, 2, arms.NUM_SUMS))
    sums[:50, 0, 0, arms.RATED] = 1
    sums[50:, 0, 1, arms.RATED] = 500
    assert Moments.of(sums).num_users() == pytest.approx([50, 2])


def test_without_users_nothing_is_known() -> None:
    with np.errstate(invalid="ignore"):
        found = compare(Moments.of(np.zeros((0, 1, 2, arms.NUM_SUMS))))
    assert np.isinf(found.variance)
    assert np.isnan(found.quality).all()
    assert float(relative_improvement(found)) == 0


def test_what_is_unknown_leaves_its_weight_to_what_is_known() -> None:
    both = np.array([0.7, 0.77]), np.array([0.862, 0.988])
    unknown = np.array([np.nan, np.nan])

    def improvement(quality: np.ndarray, positive: np.ndarray, slower: float) -> float:
        with np.errstate(invalid="ignore"):
            empty = compare(Moments.of(np.zeros((0, 1, 2, arms.NUM_SUMS))))
        found = replace(empty, quality=quality, positive=positive)
        return float(relative_improvement(found, slower))

    liked = 0.988 / 0.862 - 1
    assert improvement(*both, 0.25) == pytest.approx(0.5 * 0.1 + 0.3 * liked - 0.2 * 0.25)
    assert improvement(unknown, both[1], 0.25) == pytest.approx((0.3 * liked - 0.05) / 0.5)
    assert improvement(unknown, both[1], 0.0) > 0.05
    assert improvement(unknown, both[1], np.nan) == pytest.approx(liked)
    assert improvement(np.array([0.7, np.nan]), both[1], np.nan) == pytest.approx(liked)
    # Nothing is relative to zero, but it is known.
    assert improvement(both[0], np.array([0.0, 0.5]), 0.0) == pytest.approx(0.05)


def test_scores_of_unrated_answers_make_the_comparison_surer() -> None:
    rng = np.random.default_rng(3)
    sums = ratings(rng, 300, share=0.5, positive=0.6)
    for user in range(300):  # a tenth is rated; liking goes with quality
        arm = int(sums[user, 1, arms.SCORED] > 0)
        quality = rng.normal(0.7, 0.15, 10)
        liked = quality[0] + rng.normal(0, 0.05) > 0.65
        sums[user, arm] = (10, quality.sum(), 1, liked, not liked, 1, quality[0], 0)
    moments = Moments.of(sums[:, None])
    with_them, without = compare(moments), compare(moments, use_unrated=False)
    assert with_them.variance < 0.6 * without.variance
    assert abs(float(with_them.estimate)) < 4 * float(np.sqrt(with_them.variance))


def test_what_people_said_before_makes_the_comparison_surer_and_moves_it_nowhere() -> None:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(200):
        sums = ratings(rng, 200, share=0.5, positive=0.5, known=1, spread=0.3)
        found.append(compare(Moments.of(sums[:, None])))
        without = compare(Moments.of(sums[:, None]), use_prior=False)
        assert found[-1].variance < 0.8 * without.variance
    estimates = np.array([float(each.estimate) for each in found])
    assert abs(estimates.mean()) < 4 * estimates.std() / np.sqrt(len(found))
    claimed = np.sqrt(np.mean([float(each.variance) for each in found]))
    assert claimed == pytest.approx(estimates.std(), rel=0.15)


def test_a_user_of_whom_little_is_known_is_taken_for_an_average_one() -> None:
    nothing, little, much = prior(
        quality=np.zeros(3),
        num=np.zeros(3),
        positive=np.array([0.0, 1.0, 40.0]),
        rated=np.array([0.0, 1.0, 50.0]),
    )
    assert nothing == 0
    assert 0 < abs(little) < 0.02
    assert much == pytest.approx(0, abs=0.01)  # most of the average is this user's


def test_many_experiments_at_once_are_each_as_alone() -> None:
    rng = np.random.default_rng(4)
    each = [Moments.of(ratings(rng, 50, share=0.5, positive=0.5)[:, None]) for _ in range(3)]
    together = compare(
        Moments(np.stack([m.totals for m in each]), np.stack([m.cross for m in each]))
    )
    for number, moments in enumerate(each):
        assert together.estimate[number] == pytest.approx(float(compare(moments).estimate))
        assert together.variance[number] == pytest.approx(float(compare(moments).variance))
