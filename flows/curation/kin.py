"""Which rows of a batch are alike to samples that were curated before.

The history may be far longer than the batch. Its signatures come in blocks, and most of their
bands are dismissed by one look into a table of the bits that the batch's bands set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from flows.curation.signatures import (
    LongTexts,
    Signatures,
    bands,
    distinct,
    estimate,
    jaccard,
)

WINDOW = 8
"""Rows of a batch with one key of a band that a sample is compared with."""
ESTIMATE_MARGIN = 0.17
"""Four standard errors of the estimate at a similarity of 0.7: sqrt(0.7 * 0.3 / 128) = 0.04."""
MOST_KIN = 16
"""Samples of a block of the history that a row is compared with word for word."""
_TABLE_BITS = 24
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: multiplicative hashing (Knuth, TAOCP 3, 6.4)."""

Kind = Literal["signature", "request_signature"]
"""Of request and answer together, or of the request alone."""
Ids = npt.NDArray[np.bytes_]
"""(rows,) ids in UTF-8."""


@dataclass(frozen=True)
class Sample:
    """What is known of a sample that was curated before."""

    id: str
    age: tuple[datetime, str]
    """Smaller: curated earlier."""
    cluster_id: str
    side: str
    corrected: bool
    counts: bool
    """Whether it is, and will stay, selected: what repeats it teaches nothing new."""
    words: frozenset[int] = frozenset()
    """`word_keys` of what the signature that it was asked for by is of."""


@dataclass(frozen=True)
class History:
    """Samples that were curated before, as far as near-duplicates need them."""

    blocks: Callable[[Kind], Iterable[tuple[Ids, Signatures]]]
    """Ids with signatures, block by block; zeros where a text is too short to have one."""
    samples: Callable[[Sequence[str], Kind], dict[str, Sample]]
    """Those of the ids that are there."""


NOTHING = History(lambda _: (), lambda *_: {})
Kin = Sequence[tuple[int, Sample]]
"""Rows, each with an earlier sample that is alike to it."""


def kin_of(
    texts: LongTexts, history: History, kind: Kind, *, similarity: float
) -> list[tuple[int, Sample]]:
    """Places in `texts` with the samples that they are alike to; of many, the likeliest."""
    bands_of_batch = _Bands(texts.signatures)
    found: list[tuple[int, Sample]] = []
    for ids, old in history.blocks(kind):
        first, second = bands_of_batch.shared_with(old)
        likeness = estimate(texts.signatures, old, first, second)
        pairs = [
            (place, ids[number].decode())
            for place, number in _likeliest(first, second, likeness, similarity - ESTIMATE_MARGIN)
        ]
        samples = history.samples(sorted({name for _, name in pairs}), kind) if pairs else {}
        found += [
            (place, samples[name])
            for place, name in pairs
            if name in samples and jaccard(texts.words(place), samples[name].words) >= similarity
        ]
    return found


class _Bands:
    """The bands of a batch, to be looked up."""

    def __init__(self, signatures: Signatures) -> None:
        keys = bands(signatures)
        order = np.argsort(keys, axis=None, kind="stable")
        self._keys, self._rows = keys.ravel()[order], order // keys.shape[1]
        self._is_there = np.zeros(1 << _TABLE_BITS, np.bool_)
        self._is_there[_slots(self._keys)] = True

    def shared_with(self, old: Signatures) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pairs (row, old row) with a common key; of a key, its first `WINDOW` rows."""
        wanted = bands(old)
        places = np.flatnonzero(self._is_there[_slots(wanted.ravel())])
        keys = wanted.ravel()[places]
        start, pairs = np.searchsorted(self._keys, keys), [np.empty(0, np.int64)]
        for step in range(WINDOW):
            place = np.minimum(start + step, len(self._keys) - 1)
            hit = np.flatnonzero((self._keys[place] == keys) & (start + step < len(self._keys)))
            if not len(hit):
                break
            pairs.append(self._rows[place[hit]] * len(old) + places[hit] // wanted.shape[1])
        rows, others = np.divmod(distinct(np.concatenate(pairs)), max(len(old), 1))
        return rows, others


def _slots(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return (keys * _MIX) >> np.uint64(64 - _TABLE_BITS)


def _likeliest(
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    likeness: npt.NDArray[np.float64],
    least: float,
) -> Iterator[tuple[int, int]]:
    """Pairs of at least this likeness; of each `first` the `MOST_KIN` most alike."""
    likely = np.flatnonzero(likeness >= least)
    order = likely[np.lexsort((second[likely], -likeness[likely], first[likely]))]
    number = dict.fromkeys(first[order].tolist(), 0)
    for row, other in zip(first[order].tolist(), second[order].tolist(), strict=True):
        number[row] += 1
        if number[row] <= MOST_KIN:
            yield row, other
