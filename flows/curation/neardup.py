"""Near-duplicates: candidates by bands of MinHash, each verified by its exact similarity.

In a band, rows with one key are sorted by the next band's key, and each is compared with the
few that follow it. So the work grows with the rows and not with their square where thousands
share a template; what is alike shares several bands, and is found in another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from flows.curation.kin import ESTIMATE_MARGIN, NOTHING, WINDOW, History, Kin, kin_of
from flows.curation.signatures import LongTexts, Signatures, bands, distinct, estimate, jaccard
from registry.settings_curation import NearDuplicateSettings

Pairs = npt.NDArray[np.int64]
"""(pairs, 2): numbers of rows."""
Candidates = Callable[[Signatures], Pairs]


@dataclass(frozen=True)
class Comparison:
    """What a batch has in common with itself and with the past."""

    repeats: npt.NDArray[np.bool_]
    """(rows,) whether a row repeats another one, or an earlier sample."""
    kin: Kin


@dataclass(frozen=True)
class Requests:
    """Which requests of a batch are alike."""

    components: npt.NDArray[np.int64]
    """(rows,) equal numbers: equal or alike, be it by way of others."""
    kin: Kin


def candidate_pairs(signatures: Signatures) -> Pairs:
    """Pairs of rows that share a band, the smaller number first, each once, sorted."""
    keys = bands(signatures)
    found = [np.empty(0, np.int64)]
    for number in range(keys.shape[1]):
        following = keys[:, (number + 1) % keys.shape[1]]
        pairs = band_pairs(keys[:, number], following)
        found.append(pairs[:, 0] * np.int64(len(keys)) + pairs[:, 1])
    return np.stack(np.divmod(distinct(np.concatenate(found)), max(len(keys), 1)), axis=1)


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
    signatures: pl.Series,
    is_corrected: npt.NDArray[np.bool_],
    quality: npt.NDArray[np.float64],
    settings: NearDuplicateSettings,
    *,
    history: History = NOTHING,
    candidates: Candidates = candidate_pairs,
) -> Comparison:
    """Which rows repeat another one; `signatures`: what `signatures.sign` makes of the texts.

    Of rows that are alike the best stays: a correction before an accepted answer, then the
    higher quality, then the earlier. A correction is no repetition of an accepted answer that
    was curated before.
    """
    long = LongTexts(texts, signatures)
    repeats = np.zeros(len(texts), np.bool_)
    places = long.places
    if not settings.enabled or not len(places):
        return Comparison(repeats, [])
    component = _components(_verified(long, candidates, settings.similarity), len(places))
    best = np.lexsort((np.arange(len(places)), -quality[places], ~is_corrected[places]))
    _, leaders = np.unique(component[best], return_index=True)
    leads = np.zeros(len(places), np.bool_)
    leads[best[leaders]] = True
    kin = kin_of(long, history, "signature", similarity=settings.similarity)
    old = [
        place
        for place, sample in kin
        if sample.counts and (sample.corrected or not is_corrected[places[place]])
    ]
    leads &= ~np.isin(component, component[old])
    repeats[places] = ~leads
    return Comparison(repeats, [(int(places[place]), sample) for place, sample in kin])


def alike_requests(
    texts: Sequence[str],
    signatures: pl.Series,
    hashes: Sequence[str],
    settings: NearDuplicateSettings,
    *,
    history: History = NOTHING,
    candidates: Candidates = candidate_pairs,
) -> Requests:
    """Which requests are alike; equal ones, by their hashes, always are."""
    _, firsts, numbers = np.unique(np.array(hashes, object), return_index=True, return_inverse=True)
    long = LongTexts([texts[row] for row in firsts], signatures.gather(firsts))
    component, kin, places = np.arange(len(firsts)), [], long.places
    if settings.enabled and len(places):
        pairs = _verified(long, candidates, settings.similarity)
        component = _components(places[pairs], len(firsts))
        rows = _rows_of(numbers)
        found = kin_of(long, history, "request_signature", similarity=settings.similarity)
        kin = [(row, sample) for place, sample in found for row in rows[places[place]]]
    return Requests(component[numbers], kin)


def _rows_of(numbers: npt.NDArray[np.int64]) -> list[list[int]]:
    """The rows of each number."""
    rows: list[list[int]] = [[] for _ in range(int(numbers.max(initial=-1)) + 1)]
    for row, number in enumerate(numbers.tolist()):
        rows[number].append(row)
    return rows


def _verified(texts: LongTexts, candidates: Candidates, least: float) -> Pairs:
    """Those of the candidates that are alike, word for word."""
    signatures = texts.signatures
    pairs = candidates(signatures)
    likely = estimate(signatures, signatures, pairs[:, 0], pairs[:, 1]) >= least - ESTIMATE_MARGIN
    kept = [
        (one, two)
        for one, two in pairs[likely].tolist()
        if jaccard(texts.words(one), texts.words(two)) >= least
    ]
    return np.array(kept, np.int64).reshape(-1, 2)


def _components(pairs: Pairs, rows: int) -> npt.NDArray[np.int64]:
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(rows, rows))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
