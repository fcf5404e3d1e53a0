"""MinHash signatures of samples (Broder 1997), one byte for each permutation (Li & König 2010).

The lowest byte of each minimum is enough: two samples agree in it with chance J + (1 - J) / 256,
where J is the Jaccard similarity of their words. A word that stands twice counts twice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from rensa import RMinHash

NUM_PERMUTATIONS = 128
ROWS_PER_BAND = 5
NUM_BANDS = NUM_PERMUTATIONS // ROWS_PER_BAND
"""A pair of similarity J shares one of 25 bands with chance 1 - (1 - J^5)^25: 0.99 at 0.7."""
SEED = 42
_BLOCK = 5_000

_LONE = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
"""Letters of scripts that put no spaces between words."""
_WORD = re.compile(rf"{_LONE}|\w+")
_TOKEN = r"[\x{3040}-\x{30ff}\x{3400}-\x{9fff}\x{ac00}-\x{d7af}]|[\p{L}\p{N}_]+"
"""The same in polars, whose `\\w` takes combining marks for letters."""
_SIGNS = "[\u064b-\u0652\u0670\u0640]"
"""Vowel signs and stretching."""
_LETTERS = {**dict.fromkeys("أإآٱ", "ا"), "ى": "ي", "ة": "ه"}  # noqa: RUF001
_FOLD = {ord(letter): plain for letter, plain in _LETTERS.items()}
Signatures = npt.NDArray[np.uint8]
"""(rows, `NUM_PERMUTATIONS`)."""


def words(text: str) -> list[str]:
    """The words of a text, whatever their case and vowel signs; the k-th same word is its own."""
    lowered = text.lower()
    if not lowered.isascii():
        lowered = re.sub(_SIGNS, "", lowered).translate(_FOLD)
    counts = Counter(_WORD.findall(lowered))
    often = [(word, count) for word, count in counts.items() if count > 1]
    return [*counts, *(f"{word}#{place}" for word, count in often for place in range(1, count))]


def word_keys(text: str) -> frozenset[int]:
    """The words of a text as numbers, which mean the same within one process alone."""
    return frozenset(map(hash, words(text)))


def request_text(messages: str | None, request: str) -> str:
    """What was asked: all turns of a conversation."""
    if not messages:
        return request
    turns = [turn.get("content") for turn in json.loads(messages)]
    return "\n".join(turn if isinstance(turn, str) else json.dumps(turn) for turn in turns)


def jaccard(one: Set[Any], two: Set[Any]) -> float:
    """The exact Jaccard similarity of two sets of words, not both of them empty."""
    shared = len(one & two)
    return shared / (len(one) + len(two) - shared)


def sign(texts: pl.Series, *, min_words: int) -> pl.Series:
    """The signature of each text by its `words`, null where there are fewer than `min_words`."""
    found = _coded(_tokens(texts))
    return _signed(found.codes, found.vocabulary, len(texts), min_words)


def sign_pairs(
    requests: pl.Series, answers: pl.Series, *, min_words: int
) -> tuple[pl.Series, pl.Series]:
    """The signatures of requests, and those of each request with its answer as one text."""
    asked = _tokens(requests)
    found = _coded(pl.concat([asked, _tokens(answers)]))
    alone = found.codes.head(asked.height)
    return (
        _signed(alone, found.vocabulary, len(requests), min_words),
        _signed(found.codes, found.vocabulary, len(requests), min_words),
    )


class LongTexts:
    """Those of some texts that are long enough to be compared."""

    def __init__(self, texts: Sequence[str], signatures: pl.Series) -> None:
        """`signatures`: what `sign` makes of the texts."""
        self.places = signatures.is_not_null().arg_true().to_numpy().astype(np.int64)
        """(rows,) which of the texts each row is."""
        blob = b"".join(signatures.drop_nulls())
        self.signatures: Signatures = np.frombuffer(blob, np.uint8).reshape(-1, NUM_PERMUTATIONS)
        self._texts = texts
        self._words: dict[int, frozenset[int]] = {}

    def words(self, row: int) -> frozenset[int]:
        """The `word_keys` of a row."""
        if row not in self._words:
            self._words[row] = word_keys(self._texts[self.places[row]])
        return self._words[row]


class _Coded(NamedTuple):
    codes: pl.DataFrame
    """`row`, `code`: the words of all texts."""
    vocabulary: list[str]
    """The word of each code."""


def _tokens(texts: pl.Series) -> pl.DataFrame:
    """`row`, `word`: every word of every text, as `words` sees it but for repetitions."""
    text = pl.col("text").str.to_lowercase().str.replace_all(_SIGNS, "")
    text = text.str.replace_many(list(_LETTERS), list(_LETTERS.values()))
    listed = texts.alias("text").to_frame().select(word=text.str.extract_all(_TOKEN))
    return listed.with_row_index("row").explode("word").drop_nulls()


def _coded(tokens: pl.DataFrame) -> _Coded:
    vocabulary = tokens.select("word").unique().with_row_index("code")
    codes = tokens.join(vocabulary, on="word", how="left", maintain_order="left")
    return _Coded(codes.select("row", "code"), vocabulary["word"].to_list())


def _signed(
    tokens: pl.DataFrame, vocabulary: Sequence[str], num_texts: int, min_words: int
) -> pl.Series:
    number = np.bincount(tokens["row"].to_numpy(), minlength=num_texts)
    long = np.flatnonzero(number >= max(min_words, 1))
    row, code = np.divmod(
        np.sort(
            tokens["row"].to_numpy().astype(np.int64) * len(vocabulary) + tokens["code"].to_numpy()
        ),
        max(len(vocabulary), 1),
    )
    hashes = _hashes(row, code, vocabulary)[np.isin(row, long, kind="table")]
    borders = np.concatenate([[0], np.cumsum(number[long])]).astype(np.uint64)
    found: list[bytes | None] = [None] * num_texts
    for start in range(0, len(long), _BLOCK):
        ends = borders[start : start + _BLOCK + 1]
        digests = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes[ends[0] : ends[-1]], ends - ends[0], NUM_PERMUTATIONS, SEED
        )
        block = np.array(digests.to_rows(), np.uint32).astype(np.uint8)
        for place, signature in zip(long[start : start + _BLOCK].tolist(), block, strict=True):
            found[place] = signature.tobytes()
    return pl.Series(found, dtype=pl.Binary)


def _hashes(
    row: npt.NDArray[np.int64], code: npt.NDArray[np.int64], vocabulary: Sequence[str]
) -> npt.NDArray[np.uint64]:
    """Of words sorted by row and code; the k-th same word of a row has a hash of its own."""
    place = np.arange(len(row))
    is_new = np.ones(len(row), np.bool_)
    is_new[1:] = (row[1:] != row[:-1]) | (code[1:] != code[:-1])
    nth = place - np.maximum.accumulate(np.where(is_new, place, 0))
    again = np.flatnonzero(nth)
    most = int(nth.max(initial=0)) + 1
    pairs, which = np.unique(code[again] * most + nth[again], return_inverse=True)
    marked = [f"{vocabulary[pair // most]}#{pair % most}" for pair in pairs.tolist()]
    listed = RMinHash.hash_token_sets([[*vocabulary, *marked]])[0]
    known = np.array(listed, np.uint64)
    wanted = code.copy()
    wanted[again] = len(vocabulary) + which
    return known[wanted]


def bands(signatures: Signatures) -> npt.NDArray[np.uint64]:
    """(rows, `NUM_BANDS`): the key of each band. Rows that share a key may be alike."""
    rows = len(signatures)
    padded = np.zeros((rows, NUM_BANDS, 8), np.uint8)
    used = signatures[:, : NUM_BANDS * ROWS_PER_BAND]
    padded[:, :, :ROWS_PER_BAND] = used.reshape(rows, NUM_BANDS, ROWS_PER_BAND)
    padded[:, :, ROWS_PER_BAND] = np.arange(NUM_BANDS, dtype=np.uint8)
    return padded.view(np.uint64).reshape(rows, NUM_BANDS)


def distinct(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each number once, in order: `numpy.unique`, which takes longer to hash than to sort."""
    ordered = np.sort(numbers)
    is_new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return ordered[is_new]


def estimate(
    one: Signatures, two: Signatures, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The estimated similarity of the pairs (`one[first]`, `two[second]`)."""
    found = np.empty(len(first))
    for start in range(0, len(first), 100_000):
        part = slice(start, start + 100_000)
        found[part] = np.count_nonzero(one[first[part]] == two[second[part]], axis=1)
    return found / NUM_PERMUTATIONS
