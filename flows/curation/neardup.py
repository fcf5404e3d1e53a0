"""Near-duplicates: candidates by bands of MinHash, each verified by its exact similarity.

In a band, rows with one key are sorted by the next band's key, and each is compared with the
few that follow it. So the work grows with the rows and not with their square where thousands
share a template; what is alike shares several bands, and is found in another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from flows.curation.signatures import Signatures, bands, estimate, sign, words
from registry.settings_curation import NearDuplicateSettings

WINDOW = 8
"""Rows that each row is compared with in one band."""
ESTIMATE_MARGIN = 0.17
"""Four standard errors of the estimate at a similarity of 0.7: sqrt(0.7 * 0.3 / 128) = 0.04."""
Pairs = npt.NDArray[np.int64]
"""(pairs, 2): numbers of rows."""
Candidates = Callable[[Signatures], Pairs]


@dataclass(frozen=True)
class Sample:
    """What is compared of a sample that was curated before."""

    id: str
    text: str
    corrected: bool


@dataclass(frozen=True)
class History:
    """Samples that were curated before, as far as near-duplicates need them."""

    blocks: Callable[[], Iterable[tuple[Sequence[str], Signatures]]]
    """Ids with signatures, block by block."""
    samples: Callable[[Sequence[str]], dict[str, Sample]]
    """Those of the ids that still count."""


def candidate_pairs(signatures: Signatures) -> Pairs:
    """Pairs of rows that share a band, the smaller number first, each once, sorted."""
    keys = bands(signatures)
    found = [np.empty(0, np.int64)]
    for number in range(keys.shape[1]):
        following = keys[:, (number + 1) % keys.shape[1]]
        found.append(np.unique(_coded(band_pairs(keys[:, number], following), len(keys))))
    return _decoded(np.unique(np.concatenate(found)), len(keys))


def band_pairs(keys: npt.NDArray[np.uint64], following: npt.NDArray[np.uint64]) -> Pairs:
    """Pairs of row numbers with the same key, at most `WINDOW` apart in the order of `following`.

    Rows that also agree in `following` keep the order in which they are given.
    """
    order = np.lexsort((following, keys))
    ordered = keys[order]
    pairs = []
    for step in range(1, min(WINDOW + 1, len(ordered))):
        same = np.flatnonzero(ordered[:-step] == ordered[step:])
        if not len(same):
            break
        pairs.append(np.stack([order[same], order[same + step]], axis=1))
    return np.sort(np.concatenate(pairs), axis=1) if pairs else np.empty((0, 2), np.int64)


def near_duplicates(
    texts: Sequence[str],
    is_corrected: npt.NDArray[np.bool_],
    quality: npt.NDArray[np.float64],
    settings: NearDuplicateSettings,
    *,
    history: History | None = None,
    candidates: Candidates = candidate_pairs,
) -> tuple[npt.NDArray[np.bool_], list[bytes | None]]:
    """Which rows repeat another one, and the signature of each (None: too short to have one).

    Of rows that are alike the best stays: a correction before an accepted answer, then the
    higher quality, then the earlier. A correction is no repetition of an accepted answer that
    was curated before.
    """
    listed = [words(text) for text in texts]
    places = np.flatnonzero([len(found) >= settings.min_words for found in listed])
    tokens = [listed[place] for place in places]
    signatures = sign(tokens)
    stored: list[bytes | None] = [None] * len(texts)
    for place, signature in zip(places, signatures, strict=True):
        stored[place] = signature.tobytes()
    repeats = np.zeros(len(texts), np.bool_)
    if not settings.enabled or not len(places):
        return repeats, stored
    pairs = _verified(candidates(signatures), signatures, tokens, settings.similarity)
    component = _components(pairs, len(places))
    best = np.lexsort((np.arange(len(places)), -quality[places], ~is_corrected[places]))
    _, leaders = np.unique(component[best], return_index=True)
    leads = np.zeros(len(places), np.bool_)
    leads[best[leaders]] = True
    if history is not None:
        old = _repeated(signatures, tokens, is_corrected[places], history, settings.similarity)
        leads &= ~np.isin(component, component[old])
    repeats[places] = ~leads
    return repeats, stored


def drop_near_duplicates(frame: pl.DataFrame, repeats: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """The rows that repeat no other one."""
    return frame.filter(~pl.Series(repeats))


def _verified(
    pairs: Pairs, signatures: Signatures, tokens: Sequence[Sequence[str]], least: float
) -> Pairs:
    likely = estimate(signatures, signatures, pairs[:, 0], pairs[:, 1]) >= least - ESTIMATE_MARGIN
    sets: dict[int, frozenset[str]] = {}

    def words_of(row: int) -> frozenset[str]:
        if row not in sets:
            sets[row] = frozenset(tokens[row])
        return sets[row]

    kept = [
        (one, two)
        for one, two in pairs[likely].tolist()
        if _jaccard(words_of(one), words_of(two)) >= least
    ]
    return np.array(kept, np.int64).reshape(-1, 2)


def _repeated(
    signatures: Signatures,
    tokens: Sequence[Sequence[str]],
    is_corrected: npt.NDArray[np.bool_],
    history: History,
    least: float,
) -> npt.NDArray[np.int64]:
    """Rows that are alike to a sample of the history."""
    keys = bands(signatures)
    order = np.argsort(keys, axis=None, kind="stable")
    known, rows = keys.ravel()[order], order // keys.shape[1]
    found: set[int] = set()
    for ids, old in history.blocks():
        first, second = _shared(known, rows, bands(old))
        likely = estimate(signatures, old, first, second) >= least - ESTIMATE_MARGIN
        pairs = [
            (row, ids[number])
            for row, number in zip(first[likely].tolist(), second[likely].tolist(), strict=True)
            if row not in found
        ]
        samples = history.samples(sorted({name for _, name in pairs}))
        sets = {name: frozenset(words(sample.text)) for name, sample in samples.items()}
        found |= {
            row
            for row, name in pairs
            if name in samples
            and (samples[name].corrected or not is_corrected[row])
            and _jaccard(frozenset(tokens[row]), sets[name]) >= least
        }
    return np.array(sorted(found), np.int64)


def _shared(
    known: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64], old: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs (new row, old row) with a common key; of a key, its first `WINDOW` new rows."""
    wanted = old.ravel()
    start = np.searchsorted(known, wanted)
    pairs = [np.empty(0, np.int64)]
    for step in range(WINDOW):
        place = start + step
        inside = place < len(known)
        hit = np.flatnonzero(inside)[known[place[inside]] == wanted[inside]]
        if not len(hit):
            break
        pairs.append(_coded(np.stack([rows[place[hit]], hit // old.shape[1]], axis=1), len(old)))
    found = _decoded(np.unique(np.concatenate(pairs)), len(old))
    return found[:, 0], found[:, 1]


def _jaccard(one: frozenset[str], two: frozenset[str]) -> float:
    shared = len(one & two)
    return shared / (len(one) + len(two) - shared)


def _components(pairs: Pairs, rows: int) -> npt.NDArray[np.int64]:
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(rows, rows))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _coded(pairs: Pairs, base: int) -> npt.NDArray[np.int64]:
    return pairs[:, 0] * np.int64(max(base, 1)) + pairs[:, 1]


def _decoded(codes: npt.NDArray[np.int64], base: int) -> Pairs:
    return np.stack(np.divmod(codes, max(base, 1)), axis=1)
