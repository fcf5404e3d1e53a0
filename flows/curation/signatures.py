"""MinHash signatures of samples (Broder 1997), one byte for each permutation (Li & König 2010).

The lowest byte of each minimum is enough: two samples agree in it with chance J + (1 - J) / 256,
where J is the Jaccard similarity of their words. A word that stands twice counts twice.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

NUM_PERMUTATIONS = 128
ROWS_PER_BAND = 5
NUM_BANDS = NUM_PERMUTATIONS // ROWS_PER_BAND
"""A pair of similarity J shares one of 25 bands with chance 1 - (1 - J^5)^25: 0.99 at 0.7."""
SEED = 42
_BLOCK = 5_000

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")
_FOLD = {
    **dict.fromkeys([*range(0x064B, 0x0653), 0x0670, 0x0640]),  # vowel signs and stretching
    **dict.fromkeys((ord(letter) for letter in "أإآٱ"), "ا"),  # noqa: RUF001
    ord("ى"): "ي",
    ord("ة"): "ه",  # noqa: RUF001
}
Signatures = npt.NDArray[np.uint8]
"""(rows, `NUM_PERMUTATIONS`)."""


def words(text: str) -> list[str]:
    """The words of a text, whatever their case and vowel signs; the k-th same word is its own."""
    lowered = text.lower()
    if not lowered.isascii():
        lowered = lowered.translate(_FOLD)
    counts = Counter(_WORD.findall(lowered))
    often = [(word, count) for word, count in counts.items() if count > 1]
    return [*counts, *(f"{word}#{place}" for word, count in often for place in range(1, count))]


def word_keys(found: Iterable[str]) -> frozenset[int]:
    """The words of a text as numbers, which mean the same within one process alone."""
    return frozenset(map(hash, found))


def request_text(messages: str | None, request: str) -> str:
    """What was asked: all turns of a conversation."""
    if not messages:
        return request
    turns = [turn.get("content") for turn in json.loads(messages)]
    return "\n".join(turn if isinstance(turn, str) else json.dumps(turn) for turn in turns)


def similarity(first: str, second: str) -> float:
    """The exact Jaccard similarity of the words of two texts."""
    one, two = set(words(first)), set(words(second))
    union = len(one | two)
    return len(one & two) / union if union else 1.0


def sign(texts: Iterable[Sequence[str]]) -> Signatures:
    """The signatures of texts, each given as its words."""
    listed = list(texts)
    blocks = [
        np.array(
            RMinHash.digest_matrix_from_token_sets(
                listed[start : start + _BLOCK], NUM_PERMUTATIONS, SEED
            ).to_rows(),
            dtype=np.uint64,
        ).astype(np.uint8)
        for start in range(0, len(listed), _BLOCK)
    ]
    return np.concatenate(blocks) if blocks else np.empty((0, NUM_PERMUTATIONS), np.uint8)


def bands(signatures: Signatures) -> npt.NDArray[np.uint64]:
    """(rows, `NUM_BANDS`): the key of each band. Rows that share a key may be alike."""
    rows = len(signatures)
    padded = np.zeros((rows, NUM_BANDS, 8), np.uint8)
    used = signatures[:, : NUM_BANDS * ROWS_PER_BAND]
    padded[:, :, :ROWS_PER_BAND] = used.reshape(rows, NUM_BANDS, ROWS_PER_BAND)
    padded[:, :, ROWS_PER_BAND] = np.arange(NUM_BANDS, dtype=np.uint8)
    return padded.view(np.uint64).reshape(rows, NUM_BANDS)


def estimate(
    one: Signatures, two: Signatures, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The estimated similarity of the pairs (`one[first]`, `two[second]`)."""
    found = np.empty(len(first))
    for start in range(0, len(first), 100_000):
        part = slice(start, start + 100_000)
        found[part] = (one[first[part]] == two[second[part]]).mean(axis=1)
    return found
