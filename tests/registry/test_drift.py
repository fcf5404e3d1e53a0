import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.demo_world import samples, use
from registry import drift
from registry.features import Sample, extract
from tests.support.opinions import ratings
from training.discriminator import fit

COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=10)


@given(COUNTS)
def test_nothing_has_drifted_from_itself(counts: list[int]) -> None:
    values = np.array(counts, float)
    assert drift.psi(values, values) == pytest.approx(0)


@given(COUNTS)
def test_drift_is_never_negative_and_has_no_direction(counts: list[int]) -> None:
    one = np.array(counts, float)
    other = np.array(sorted(counts), float)
    assert drift.psi(one, other) >= 0
    assert drift.psi(one, other) == pytest.approx(drift.psi(other, one))


def test_answers_of_another_kind_are_seen_to_drift() -> None:
    rated = ratings(300)
    fitted = fit(rated, rule=[0.5] * len(rated))
    kept = drift.reference(fitted.scorer, [extract(one.sample) for one in rated])
    alike = drift.stability(fitted.scorer, kept, samples(use(300, seed=2)))
    assert max(alike.values()) < 0.25
    others = [Sample(f"tell me {n}", f"well, {n} it is, more or less") for n in range(200)]
    drifted = drift.stability(fitted.scorer, kept, others)
    assert drifted["sections"] > 0.25
    assert drifted[drift.NOVELTY] > 0.25
    assert next(iter(drifted.values())) == max(drifted.values())
    assert drift.stability(fitted.scorer, kept, []) == {}
