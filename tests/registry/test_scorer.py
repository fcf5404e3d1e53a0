from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import scorer as scorers
from registry.errors import ArtifactError
from registry.features import NUM_HASHED, NUMBERS, Sample, extract
from registry.quality import RULE_SCORER, ActiveScorer, explain, judge
from registry.scorer import ARRAYS_FILE, MANIFEST_FILE, NUM_KNOTS, Scorer, load, save

SAMPLE = Sample("write a mail about cats", "Role: expert\nTask: cats\nTone: warm", "email", "en")


def make_scorer(seed: int = 1) -> Scorer:
    rng = np.random.default_rng(seed)
    return Scorer(
        weights=rng.normal(size=NUM_HASHED),
        seen=np.ones(NUM_HASHED),
        number_weights=rng.normal(size=len(NUMBERS)),
        means=rng.normal(size=len(NUMBERS)),
        scales=np.ones(len(NUMBERS)),
        calibration=np.array([0.1, 0.9, -0.2]),
        knots=np.tile(np.linspace(0, 1, NUM_KNOTS), (2, 1)),
        kinds=np.ones(2),
    )


SCORER = make_scorer()


@given(st.text(max_size=100), st.text(max_size=100))
def test_a_score_is_a_chance(text: str, output: str) -> None:
    assert 0 <= SCORER.score(Sample(text, output)) <= 1


def test_the_reasons_add_up_to_the_score() -> None:
    effects = sum(reason.effect for reason in SCORER.explain(SAMPLE, top=10_000))
    bias, slope, offset = SCORER.calibration
    odds = effects + slope * bias + offset
    assert SCORER.score(SAMPLE) == pytest.approx(1 / (1 + np.exp(-odds)))
    strongest = SCORER.explain(SAMPLE, top=3)
    assert [abs(one.effect) for one in strongest] == sorted(
        (abs(one.effect) for one in strongest), reverse=True
    )


def test_a_scorer_comes_back_from_its_folder(tmp_path: Path) -> None:
    save(SCORER, tmp_path / "s", manifest={"why": "a test"})
    assert load(tmp_path / "s").score(SAMPLE) == pytest.approx(SCORER.score(SAMPLE), abs=1e-5)
    assert scorers.read_manifest(tmp_path / "s")["why"] == "a test"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (ARRAYS_FILE, b"", "cannot be read"),
        (ARRAYS_FILE, b"PK\x03\x04 cut short", "cannot be read"),
        (MANIFEST_FILE, b"{", "no readable manifest"),
        (MANIFEST_FILE, b"[]", "no object"),
        (MANIFEST_FILE, b'{"features": "features-0"}', "made for 'features-0'"),
    ],
)
def test_a_damaged_scorer_is_refused(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    save(SCORER, tmp_path / "s", manifest={})
    (tmp_path / "s" / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=complaint):
        load(tmp_path / "s")


def test_arrays_of_another_shape_or_of_pickles_are_refused(tmp_path: Path) -> None:
    save(SCORER, tmp_path / "s", manifest={})
    good = dict(np.load(tmp_path / "s" / ARRAYS_FILE))
    for change, complaint in (
        ({"weights": np.zeros(3)}, "'weights' is not"),
        ({"means": np.full(len(NUMBERS), np.nan)}, "'means' is not"),
        ({"scales": np.array([object()])}, "cannot be read"),
    ):
        np.savez(tmp_path / "s" / ARRAYS_FILE, **(good | change))  # type: ignore[arg-type]
        with pytest.raises(ArtifactError, match=complaint):
            load(tmp_path / "s")


def test_without_a_fitted_scorer_the_rule_judges_and_explains() -> None:
    assert judge(SAMPLE, None).scorer_version == RULE_SCORER
    assert "Section Context is missing." in [one.feature for one in explain(SAMPLE, None)]


def test_an_empty_answer_is_worth_nothing_whoever_scores() -> None:
    active = ActiveScorer("scorer-1", SCORER)
    assert judge(Sample("x", " \n"), active).value == 0
    assert judge(SAMPLE, active).scorer_version == "scorer-1"


def test_novelty_is_the_share_of_names_that_fitting_never_met() -> None:
    features = extract(SAMPLE)
    never = Scorer(**{**SCORER.__dict__, "seen": np.zeros(NUM_HASHED)})
    once = Scorer(**{**SCORER.__dict__, "seen": np.ones(NUM_HASHED)})
    assert never.novelty(features) == 1
    assert once.novelty(features) == 0
    assert once.novelty(features, fitted=True) == 1
