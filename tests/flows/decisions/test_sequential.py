"""The formulas, and by simulation that they keep their promise at every look."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.decisions.sequential import (
    log_e_worse,
    margin,
    restarted,
    split_log_e,
    tightest_at,
    two_rates_log_e,
)


def test_the_margin_is_the_papers_formula() -> None:
    """Theorem 2.2 with n answers of variance σ², and nρ² as the progress."""
    num, sigma2, rho2, alpha = 1000, 0.04, 0.008, 0.05
    paper = math.sqrt(sigma2) * math.sqrt(
        2 * (num * rho2 + 1) / (num**2 * rho2) * math.log(math.sqrt(num * rho2 + 1) / alpha)
    )
    ours = margin(np.array(sigma2 / num), np.array(num * rho2), alpha=alpha)
    assert float(ours) == pytest.approx(paper)


@pytest.mark.parametrize("alpha", [0.001, 0.02, 0.05, 0.2])
def test_the_margin_is_tightest_where_it_is_said_to_be(alpha: float) -> None:
    progress = np.geomspace(0.1, 1000, 20_000)
    widths = margin(1 / progress, progress, alpha=alpha) * np.sqrt(progress)
    assert progress[np.argmin(widths)] == pytest.approx(tightest_at(alpha), rel=0.01)


def test_the_mixture_is_the_integral_that_it_stands_for() -> None:
    """∫ of the likelihood ratio over positive drifts θ with a half-normal prior."""
    z, progress = 1.7, 6.0
    theta = np.linspace(0, 12, 200_001)  # in units of the prior's standard deviation
    ratio = np.exp(theta * z * math.sqrt(progress) - theta**2 * progress / 2)
    prior = 2 * np.exp(-(theta**2) / 2) / math.sqrt(2 * math.pi)
    assert math.exp(log_e_worse(np.array(z), np.array(progress))) == pytest.approx(
        np.trapezoid(ratio * prior, theta), rel=1e-6
    )


def test_neither_bound_is_crossed_more_often_than_alpha_over_all_looks() -> None:
    """2000 random walks without drift, looked at 1000 times each."""
    rng = np.random.default_rng(1)
    num = np.arange(1, 1001)
    z = np.cumsum(rng.normal(size=(2000, 1000)), axis=1) / np.sqrt(num)
    progress = tightest_at(0.05) * num / 300
    half = margin(1 / num, progress, alpha=0.05) * np.sqrt(num)
    assert (np.abs(z) > half).any(axis=1).mean() < 0.05
    assert (log_e_worse(z, progress) > -math.log(0.05)).any(axis=1).mean() < 0.05


rates = st.floats(0.01, 0.9)
counts = st.integers(0, 4)


@given(common=rates, bet=rates, num=counts, control=counts, odds=st.floats(1, 50))
def test_a_block_of_equal_rates_has_a_mean_of_at_most_one(
    common: float, bet: float, num: int, control: int, odds: float
) -> None:
    mean = 0.0
    for hits in range(num + 1):
        for control_hits in range(control + 1):
            ways = math.comb(num, hits) * math.comb(control, control_hits)
            all_hits = hits + control_hits
            chance = ways * common**all_hits * (1 - common) ** (num + control - all_hits)
            arrays = [np.array(float(n)) for n in (hits, num, control_hits, control)]
            mean += chance * math.exp(two_rates_log_e(*arrays, rate=np.array(bet), odds=odds))
    assert mean <= 1 + 1e-9


@given(
    up=st.floats(0.1, 5),
    chance=st.floats(0.05, 0.95),
    num=st.integers(1, 12),
)
def test_what_is_begun_anew_again_and_again_stays_an_e_process(
    up: float, chance: float, num: int
) -> None:
    down = math.log((1 - chance * math.exp(min(up, -math.log(chance) - 1e-9))) / (1 - chance))
    up = min(up, -math.log(chance) - 1e-9)
    paths = np.array(list(itertools.product((0, 1), repeat=num)))
    likely = np.prod(np.where(paths == 1, chance, 1 - chance), axis=1)
    course = restarted(np.where(paths == 1, up, down))
    assert (likely * np.exp(course[:, -1])).sum() <= 1 + 1e-9


def test_what_turns_bad_late_is_found_nearly_as_soon_as_what_was_bad_at_once() -> None:
    good, bad = np.full(400, -0.1), np.full(40, 0.5)
    late = restarted(np.concatenate([good, bad]))[400:]
    assert np.argmax(late > math.log(100)) < 40
    assert np.cumsum(np.concatenate([good, bad]))[-1] < 0  # alone, it would never get there


@given(num=st.integers(0, 12), share=st.floats(0.05, 0.95))
def test_a_fair_split_has_a_mean_of_one(num: int, share: float) -> None:
    treated = np.arange(num + 1, dtype=float)
    chance = np.array(
        [math.comb(num, k) * share**k * (1 - share) ** (num - k) for k in range(num + 1)]
    )
    e_values = np.exp(split_log_e(treated, np.full(num + 1, float(num)), share=share))
    assert (chance * e_values).sum() == pytest.approx(1)


def test_a_broken_split_is_found_soon() -> None:
    rng = np.random.default_rng(2)
    treated = (rng.random((200, 1000)) < 0.4).cumsum(axis=1).astype(float)
    num = np.broadcast_to(np.arange(1.0, 1001), treated.shape)
    found = (split_log_e(treated, num, share=0.5) > math.log(1000)).any(axis=1)
    assert found.mean() > 0.95
