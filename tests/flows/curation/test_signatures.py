"""Signatures of many texts at once are those of the words of each."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from rensa import RMinHash

from flows.curation.signatures import NUM_PERMUTATIONS, SEED, distinct, sign, sign_pairs, words

LETTERS = "aA1_ \n-#'٣ةأٱَـىيक्日本ごガ한ΣςßİkŁ\u0301½²Ⅷ😀"
KNOWN = st.characters(exclude_categories=("Cs", "Cn"))
"""Letters that are younger than Python's tables are letters to polars alone."""
TEXTS = st.lists(st.text(LETTERS, max_size=30) | st.text(KNOWN, max_size=30), max_size=6)


def one_by_one(texts: Sequence[str], *, min_words: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    for text in texts:
        listed = words(text)
        rows = RMinHash.digest_matrix_from_token_sets([listed], NUM_PERMUTATIONS, SEED).to_rows()
        signature = np.array(rows[0], np.uint32).astype(np.uint8).tobytes()
        found.append(signature if len(listed) >= min_words else None)
    return found


@given(TEXTS, st.integers(1, 4))
def test_signatures_are_those_of_the_words(texts: list[str], min_words: int) -> None:
    found = sign(pl.Series(texts, dtype=pl.String), min_words=min_words)
    assert found.to_list() == one_by_one(texts, min_words=min_words)


@given(st.lists(st.tuples(st.text(LETTERS, max_size=20), st.text(LETTERS, max_size=20))))
def test_a_pair_is_signed_as_one_text(pairs: list[tuple[str, str]]) -> None:
    asked, answered = ([pair[side] for pair in pairs] for side in (0, 1))
    alone, both = sign_pairs(
        pl.Series(asked, dtype=pl.String), pl.Series(answered, dtype=pl.String), min_words=2
    )
    assert alone.to_list() == one_by_one(asked, min_words=2)
    assert both.to_list() == one_by_one(list(map("\n".join, pairs)), min_words=2)


def test_a_word_that_comes_twice_counts_twice() -> None:
    once, twice = sign(pl.Series(["buy now", "buy buy now"]), min_words=1)
    assert once != twice
    assert words("buy buy now") == ["buy", "now", "buy#1"]


@given(st.lists(st.integers(-50, 50)))
def test_distinct_numbers_come_once_and_in_order(numbers: list[int]) -> None:
    assert distinct(np.array(numbers, np.int64)).tolist() == sorted(set(numbers))
