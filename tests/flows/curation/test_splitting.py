"""Which side a sample stands on: with its user and with all requests like it, for ever."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.curation.kin import History, Ids, Kind, Sample
from flows.curation.neardup import alike_requests
from flows.curation.signatures import LongTexts, Signatures, jaccard, sign, word_keys, words
from flows.curation.splitting import ELSEWHERE, TORN, with_split
from registry.settings_curation import CurationSettings

SETTINGS = CurationSettings(split_by_user_from=3)
NEAR = SETTINGS.near_duplicates
OLD = datetime(2026, 1, 1, tzinfo=UTC)


def rows(requests: Sequence[str], users: Sequence[str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": users, "request_hash": requests},
        schema={"user_id": pl.String, "request_hash": pl.String},
    )


def signed(texts: Sequence[str]) -> pl.Series:
    return sign(pl.Series(texts, dtype=pl.String), min_words=NEAR.min_words)


class Curated:
    """What was curated before, batch after batch."""

    def __init__(self) -> None:
        self.samples: dict[str, Sample] = {}
        self.texts: dict[str, str] = {}

    @property
    def history(self) -> History:
        def blocks(_: Kind) -> Sequence[tuple[Ids, Signatures]]:
            texts = list(self.texts.values())
            long = LongTexts(texts, signed(texts))
            names = np.array([name.encode() for name in self.texts])
            return [(names[long.places], long.signatures)] if len(long.places) else []

        return History(blocks, lambda ids, _: {name: self.samples[name] for name in ids})

    def take(self, texts: Sequence[str], users: Sequence[str | None]) -> Mapping[str, int]:
        """Split one batch and remember what stays."""
        asked = alike_requests(texts, signed(texts), texts, NEAR, history=self.history)
        equal = [
            (row, sample)
            for row, text in enumerate(texts)
            for name, sample in self.samples.items()
            if self.texts[name] == text
        ]
        frame = rows(texts, users).with_columns(place=pl.int_range(pl.len()))
        found = with_split(frame, SETTINGS, components=asked.components, kin=[*asked.kin, *equal])
        for text, place, split, cluster in found.frame.select(
            "request_hash", "place", "split", "cluster_id"
        ).iter_rows():
            name = f"{len(self.samples):04}-{place}"
            self.texts[name] = text
            self.samples[name] = Sample(
                name, (OLD, name), cluster, split, False, True, word_keys(text)
            )
        return found.notes


VOCABULARY = [f"word{number}" for number in range(30)]
SENTENCE = st.lists(st.sampled_from(VOCABULARY), min_size=12, max_size=16, unique=True)


@st.composite
def families(draw: st.DrawFn) -> list[str]:
    """Requests, many of them alike: a word or two of another one changed."""
    found = [draw(SENTENCE)]
    for _ in range(draw(st.integers(1, 9))):
        if draw(st.booleans()):
            found.append(draw(SENTENCE))
            continue
        changed = list(draw(st.sampled_from(found)))
        for place in draw(st.lists(st.integers(0, len(changed) - 1), max_size=2)):
            changed[place] = draw(st.sampled_from(VOCABULARY))
        found.append(changed)
    return [" ".join(found) for found in draw(st.permutations(found))]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(families(), min_size=1, max_size=4),
    st.lists(st.sampled_from([None, "ann", "bob", "cid", "dan", "eve"]), min_size=40, max_size=40),
)
def test_alike_requests_never_stand_on_two_sides(
    batches: list[list[str]], users: list[str | None]
) -> None:
    """Over any batches, whoever asks: what is found alike is on one side, and stays there."""
    curated = Curated()
    for texts in batches:
        before = {name: sample.side for name, sample in curated.samples.items()}
        curated.take(texts, users[: len(texts)])
        assert {name: curated.samples[name].side for name in before} == before
    # Above 0.85 the bands miss one pair in a million.
    names = list(curated.samples)
    for place, one in enumerate(names):
        for two in names[:place]:
            if jaccard(set(words(curated.texts[one])), set(words(curated.texts[two]))) >= 0.85:
                assert curated.samples[one].side == curated.samples[two].side


def test_a_new_member_takes_the_side_and_cluster_of_its_oldest() -> None:
    young, old = (
        Sample("x", (OLD.replace(year=year), "x"), f"cluster-{year}", "test", False, True)
        for year in (2025, 2024)
    )
    frame = rows(["a", "b"], [None, None])
    found = with_split(frame, SETTINGS, components=np.array([7, 7]), kin=[(0, young), (1, old)])
    assert found.frame["split"].to_list() == ["test", "test"]
    assert found.frame["cluster_id"].to_list() == ["cluster-2024"] * 2


def test_what_is_alike_to_samples_on_two_sides_is_left_out_and_counted() -> None:
    sides = [(0, Sample("x", (OLD, side), side, side, False, True)) for side in ("train", "test")]
    found = with_split(rows(["a"], [None]), SETTINGS, components=np.array([0]), kin=sides)
    assert (found.frame.height, found.notes[TORN]) == (0, 1)


def test_a_user_on_another_side_than_the_request_is_left_out_and_counted() -> None:
    users = [f"user-{number}" for number in range(40)]
    found = with_split(rows(["same"] * 40, users), SETTINGS, components=np.zeros(40, np.int64))
    assert found.frame["split"].n_unique() == 1
    assert found.notes[ELSEWHERE] == 40 - found.frame.height > 0
