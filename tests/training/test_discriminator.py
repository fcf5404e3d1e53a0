"""Fitting a scorer on what people of the demo's world say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.demo_world import use
from registry import quality
from tests.support.opinions import ratings
from training.calibration import calibrated, curve, platt
from training.discrimination import auc
from training.discriminator import Data, Fitted, Rating, fit
from training.errors import DataError


def fitted_on(rated: Sequence[Rating]) -> Fitted:
    rule = [quality.score(one.sample.output, target_tool=one.sample.target_tool) for one in rated]
    return fit(rated, rule=rule)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fitted_on(ratings(500))


def test_it_tells_good_answers_from_others_better_than_the_rule(fitted: Fitted) -> None:
    test = use(500, seed=99)
    good = np.array([one.is_good for one in test])
    found = auc(np.array([fitted.scorer.score(one.sample) for one in test]), good)
    rule = auc(np.array([one.rule_score for one in test]), good)
    assert found > 0.85 > rule


def test_it_is_tried_on_later_ratings_of_other_people(fitted: Fitted) -> None:
    assert fitted.held_out is not None
    assert fitted.rule_held_out is not None
    tried = fitted.held_out.num_liked + fitted.held_out.num_other
    assert tried == 0.4 * fitted.num_ratings
    assert tried == fitted.rule_held_out.num_liked + fitted.rule_held_out.num_other


def test_the_same_ratings_give_the_same_scorer() -> None:
    rated = ratings(120)
    one, other = (fitted_on(rated).scorer for _ in range(2))
    assert np.array_equal(one.weights, other.weights)
    assert np.array_equal(one.calibration, other.calibration)


def test_chances_are_calibrated_on_people_whom_the_model_never_saw(fitted: Fitted) -> None:
    assert fitted.cross_fitted.calibration_error < 0.12


def test_who_is_not_trusted_at_all_has_no_say() -> None:
    rated = ratings(150)
    liars = [replace(one, liked=not one.liked, weight=0.0) for one in ratings(150, seed=2)]
    with_liars, without = fitted_on([*rated, *liars]), fitted_on(rated)
    assert with_liars.num_ratings == 150
    assert np.array_equal(with_liars.scorer.weights, without.scorer.weights)


def test_nothing_is_learned_from_one_opinion_or_few_people() -> None:
    rated = ratings(50)
    with pytest.raises(DataError, match="both opinions"):
        fitted_on([replace(one, liked=True) for one in rated])
    with pytest.raises(DataError, match="50 ratings of 1 people"):
        fitted_on([replace(one, user="me") for one in rated])


def test_where_all_agreed_lately_nothing_is_held_out() -> None:
    rated = ratings(50)
    agreed = [replace(one, liked=True) for one in rated[25:]]
    assert fitted_on([*rated[:25], *agreed]).held_out is None


def test_margins_that_say_nothing_give_everybody_the_same_chance() -> None:
    liked = np.array([True, False, True, False])
    slope, offset = platt(np.array([1.0, 1.0, -1.0, -1.0]), liked, np.ones(4))
    assert slope == pytest.approx(0, abs=1e-3)
    assert offset == pytest.approx(0, abs=1e-3)


def test_the_hashed_matrix_holds_each_name_once() -> None:
    data = Data.of(ratings(5))
    sizes = [len(each.names) for each in data.features]
    assert np.diff(data.words.indptr).tolist() == sizes


def test_the_curve_follows_fickle_ratings_and_keeps_the_order() -> None:
    rng = np.random.default_rng(3)
    sigmoid = np.sort(rng.uniform(size=4_000))
    chances = np.where(sigmoid > 0.5, 0.9, 0.1)
    liked = rng.uniform(size=4_000) < chances
    found = calibrated(sigmoid, curve(sigmoid, liked, np.ones(4_000)))
    assert np.abs(found - chances).mean() < 0.03
    assert (np.diff(found) > 0).all()


@given(st.integers(1, 300), st.integers(0, 5))
def test_the_curve_of_any_ratings_rises_within_bounds(number: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sigmoid, weights = rng.uniform(size=number), rng.uniform(0.1, 3, size=number)
    knots = curve(sigmoid, rng.uniform(size=number) < sigmoid, weights)
    assert (np.diff(knots, axis=1) >= 0).all()
    assert knots.min() >= 0
    assert knots.max() <= 1
