"""The change detector and the drift of prompts."""

import numpy as np
import pytest

from flows.decisions.change import prompt_drift, quality_change


def days(rng: np.random.Generator, num: int, mean: float) -> list[float]:
    return list(rng.normal(mean, 0.01, num))


def test_a_quarter_without_a_change_rarely_raises_an_alarm() -> None:
    rng = np.random.default_rng(1)
    fired = 0
    for _ in range(60):
        usual, later = days(rng, 14, 0.8), days(rng, 91, 0.8)
        states = (quality_change(usual, later[:n], tolerance=0.02, line=180) for n in range(92))
        fired += any(state is not None and state.fired for state in states)
    assert fired / 60 < 0.1


def test_a_drop_of_a_tenth_is_found_in_days_and_a_rise_never() -> None:
    rng = np.random.default_rng(2)
    usual = days(rng, 14, 0.8)
    dropped = quality_change(usual, days(rng, 3, 0.72), tolerance=0.02, line=180)
    risen = quality_change(usual, days(rng, 90, 0.9), tolerance=0.02, line=180)
    assert dropped is not None
    assert dropped.fired
    assert risen is not None
    assert not risen.fired


def test_a_few_days_do_not_tell_what_is_usual() -> None:
    assert quality_change([0.8] * 6, [0.1], tolerance=0.02, line=180) is None


def test_the_same_mixture_has_no_drift_and_another_one_names_what_moved() -> None:
    usual = {"email": 500, "code": 400, "rare": 3}
    same, moved = prompt_drift(usual, usual), prompt_drift(usual, {"email": 100, "code": 800})
    assert same is not None
    assert same.psi == pytest.approx(0)
    assert moved is not None
    assert moved.psi > 0.2
    assert moved.most.startswith("email: ")


def test_an_unheard_of_class_is_finite_and_an_empty_side_unknown() -> None:
    found = prompt_drift({"email": 500}, {"image": 500})
    assert found is not None
    assert 1 < found.psi < np.inf
    assert prompt_drift({}, {"email": 5}) is None
