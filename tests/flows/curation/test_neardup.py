from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.curation_data import Writer
from flows.curation.neardup import NOTHING, History, Sample, near_duplicates
from flows.curation.signatures import sign, similarity, word_keys, words
from registry.settings_curation import NearDuplicateSettings

SETTINGS = NearDuplicateSettings()


def sample(name: str, text: str, *, corrected: bool = False) -> Sample:
    return Sample(
        id=name,
        age=(datetime(2026, 1, 1, tzinfo=UTC), name),
        cluster_id=name,
        side="train",
        corrected=corrected,
        counts=True,
        keys={"signature": word_keys(words(text))},
    )


def repeats(texts: Sequence[str], history: History = NOTHING) -> list[bool]:
    found = near_duplicates(
        texts,
        np.zeros(len(texts), np.bool_),
        np.ones(len(texts)),
        SETTINGS,
        history=history,
    )
    return found.repeats.tolist()


@pytest.mark.parametrize("language", ["en", "ar"])
def test_planted_near_duplicates_are_found_and_template_mates_are_kept(language: str) -> None:
    write = Writer(7)
    originals = [write.prose(language) for _ in range(400)]
    mates = [write.templated(language) for _ in range(800)]
    copied = [*originals[:200], *mates[:200]]
    copies = [write.edited(text, language) for text in copied]
    found = repeats([*originals, *mates, *copies])
    hits, wrong = sum(found[1200:]), sum(found[:1200])
    assert hits / 400 >= 0.98
    assert hits / (hits + wrong) >= 0.99


def test_new_batches_are_compared_with_everything_before() -> None:
    write = Writer(8)
    old = [write.prose() for _ in range(300)]
    samples = {str(i): sample(str(i), text) for i, text in enumerate(old)}
    signatures = sign([words(text) for text in old])
    history = History(
        lambda _: [([str(i) for i in range(300)], signatures)],
        lambda ids: {name: samples[name] for name in ids},
    )
    fresh = [write.prose() for _ in range(300)]
    found = repeats([*(write.edited(text) for text in old), *fresh], history)
    assert sum(found[:300]) / 300 >= 0.98
    assert sum(found[300:]) == 0


def test_a_correction_stays_though_its_accepted_like_was_there_before() -> None:
    write = Writer(9)
    text = write.prose(least=40)
    signature = sign([words(text)])
    history = History(lambda _: [(["a"], signature)], lambda _: {"a": sample("a", text)})
    for corrected in (True, False):
        found = near_duplicates(
            [write.edited(text)],
            np.array([corrected]),
            np.ones(1),
            SETTINGS,
            history=history,
        )
        assert found.repeats.tolist() == [not corrected]
        assert [old.id for _, old in found.kin] == ["a"]


def test_the_best_of_those_alike_stays() -> None:
    write = Writer(10)
    text = write.prose(least=40)
    texts = [text, write.edited(text), write.edited(text)]
    quality = np.array([0.7, 0.9, 0.8])
    for corrected, best in (([0, 0, 0], 1), ([0, 0, 1], 2)):
        found = near_duplicates(texts, np.array(corrected, np.bool_), quality, SETTINGS)
        assert [i for i in range(3) if not found.repeats[i]] == [best]


def test_short_texts_are_never_alike() -> None:
    assert repeats(["write a mail about cats", "write a mail about dogs"]) == [False, False]


def test_thousands_with_one_template_cost_no_square() -> None:
    """Each row is compared with a few in each band, whatever they all share."""
    write = Writer(11)
    texts = [write.templated() for _ in range(3000)]
    assert sum(repeats(texts)) <= 30


@given(st.lists(st.text(max_size=40), max_size=8))
def test_any_text_can_be_compared(texts: list[str]) -> None:
    assert len(repeats(texts)) == len(texts)


@given(st.text(max_size=60), st.text(max_size=60))
def test_similarity_is_symmetric_and_a_share(one: str, two: str) -> None:
    assert similarity(one, two) == similarity(two, one)
    assert 0 <= similarity(one, two) <= 1
    assert similarity(one, one) == 1
