from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.curation_data import Writer
from flows.curation.kin import NOTHING, History, Sample
from flows.curation.neardup import near_duplicates
from flows.curation.signatures import LongTexts, sign, word_keys
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
        words=word_keys(text),
    )


def signed(texts: Sequence[str]) -> pl.Series:
    return sign(pl.Series(texts, dtype=pl.String), min_words=SETTINGS.min_words)


def history_of(samples: Mapping[str, Sample], texts: Sequence[str]) -> History:
    """What was curated before; `texts` are those of the samples."""
    ids = np.array([name.encode() for name in samples])
    signatures = LongTexts(texts, signed(texts)).signatures
    return History(
        lambda _: [(ids, signatures)], lambda names, _: {name: samples[name] for name in names}
    )


def repeats(texts: Sequence[str], history: History = NOTHING) -> list[bool]:
    found = near_duplicates(
        texts,
        signed(texts),
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
    history = history_of(samples, old)
    fresh = [write.prose() for _ in range(300)]
    found = repeats([*(write.edited(text) for text in old), *fresh], history)
    assert sum(found[:300]) / 300 >= 0.98
    assert sum(found[300:]) == 0


def test_a_correction_stays_though_its_accepted_like_was_there_before() -> None:
    write = Writer(9)
    text = write.prose(least=40)
    history = history_of({"a": sample("a", text)}, [text])
    for corrected in (True, False):
        edited = [write.edited(text)]
        found = near_duplicates(
            edited,
            signed(edited),
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
        found = near_duplicates(
            texts, signed(texts), np.array(corrected, np.bool_), quality, SETTINGS
        )
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
