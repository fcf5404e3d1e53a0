"""Near-duplicates: candidates by bands of MinHash, each verified by its exact similarity.

In a band, rows with one key are sorted by the next band's key, and each is compared with the
few that follow it. So the work grows with the rows and not with their square where thousands
share a template; what is alike shares several bands, and is found in another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from flows.curation.signatures import Signatures, bands, estimate, sign, word_keys, words
from registry.settings_curation import NearDuplicateSettings

WINDOW = 8
"""Rows that each row is compared with in one band."""
ESTIMATE_MARGIN = 0.17
"""Four standard errors of the estimate at a similarity of 0.7: sqrt(0.7 * 0.3 / 128) = 0.04."""
MOST_KIN = 16
"""Samples of a block of the history that a row is compared with word for word."""
Pairs = npt.NDArray[np.int64]
"""(pairs, 2): numbers of rows."""
Candidates = Callable[[Signatures], Pairs]


Kind = Literal["signature", "request_signature"]
"""Of request and answer together, or of the request alone."""


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
    keys: Mapping[Kind, frozenset[int]]
    """`word_keys` of what each signature is of."""


@dataclass(frozen=True)
class History:
    """Samples that were curated before, as far as near-duplicates need them."""

    blocks: Callable[[Kind], Iterable[tuple[Sequence[str], Signatures]]]
    """Ids with signatures, block by block."""
    samples: Callable[[Sequence[str]], dict[str, Sample]]
    """Those of the ids that are there."""


NOTHING = History(lambda _: (), lambda _: {})
Kin = Sequence[tuple[int, Sample]]
"""Rows, each with an earlier sample that is alike to it."""


@dataclass(frozen=True)
class Comparison:
    """What a batch has in common with itself and with the past."""

    repeats: npt.NDArray[np.bool_]
    """(rows,) whether a row repeats another one, or an earlier sample."""
    signatures: list[bytes | None]
    """None: too short to have one."""
    kin: Kin


@dataclass(frozen=True)
class Requests:
    """Which requests of a batch are alike."""

    components: npt.NDArray[np.int64]
    """(rows,) equal numbers: equal or alike, be it by way of others."""
    signatures: list[bytes | None]
    kin: Kin


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
    history: History = NOTHING,
    candidates: Candidates = candidate_pairs,
) -> Comparison:
    """Which rows repeat another one.

    Of rows that are alike the best stays: a correction before an accepted answer, then the
    higher quality, then the earlier. A correction is no repetition of an accepted answer that
    was curated before.
    """
    places, tokens, signatures = _signed(texts, settings)
    stored = _stored(len(texts), places, signatures)
    repeats = np.zeros(len(texts), np.bool_)
    if not settings.enabled or not len(places):
        return Comparison(repeats, stored, [])
    pairs = _verified(candidates(signatures), signatures, tokens, settings.similarity)
    component = _components(pairs, len(places))
    best = np.lexsort((np.arange(len(places)), -quality[places], ~is_corrected[places]))
    _, leaders = np.unique(component[best], return_index=True)
    leads = np.zeros(len(places), np.bool_)
    leads[best[leaders]] = True
    kin = _kin(signatures, tokens, history, "signature", settings.similarity)
    old = [
        row
        for row, sample in kin
        if sample.counts and (sample.corrected or not is_corrected[places[row]])
    ]
    leads &= ~np.isin(component, component[old])
    repeats[places] = ~leads
    return Comparison(repeats, stored, [(int(places[row]), sample) for row, sample in kin])


def alike_requests(
    texts: Sequence[str],
    hashes: Sequence[str],
    settings: NearDuplicateSettings,
    *,
    history: History = NOTHING,
    candidates: Candidates = candidate_pairs,
) -> Requests:
    """Which requests are alike; equal ones, by their hashes, always are."""
    _, firsts, numbers = np.unique(np.array(hashes, object), return_index=True, return_inverse=True)
    places, tokens, signatures = _signed([texts[row] for row in firsts], settings)
    stored = _stored(len(firsts), places, signatures)
    component, kin = np.arange(len(firsts)), []
    if settings.enabled and len(places):
        pairs = _verified(candidates(signatures), signatures, tokens, settings.similarity)
        component = _components(places[pairs], len(firsts))
        found = _kin(signatures, tokens, history, "request_signature", settings.similarity)
        rows = _rows_of(numbers)
        kin = [(row, sample) for place, sample in found for row in rows[places[place]]]
    return Requests(component[numbers], [stored[number] for number in numbers], kin)


def _signed(
    texts: Sequence[str], settings: NearDuplicateSettings
) -> tuple[npt.NDArray[np.int64], Sequence[Sequence[str]], Signatures]:
    """Places, words and signatures of the texts that are long enough."""
    listed = [words(text) for text in texts]
    places = np.array(
        [place for place, found in enumerate(listed) if len(found) >= settings.min_words], np.int64
    )
    tokens = [listed[place] for place in places]
    return places, tokens, sign(tokens)


def _rows_of(numbers: npt.NDArray[np.int64]) -> list[list[int]]:
    """The rows of each number."""
    rows: list[list[int]] = [[] for _ in range(int(numbers.max(initial=-1)) + 1)]
    for row, number in enumerate(numbers.tolist()):
        rows[number].append(row)
    return rows


def _stored(
    number: int, places: npt.NDArray[np.int64], signatures: Signatures
) -> list[bytes | None]:
    found: list[bytes | None] = [None] * number
    for place, signature in zip(places, signatures, strict=True):
        found[place] = signature.tobytes()
    return found


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


def _kin(
    signatures: Signatures,
    tokens: Sequence[Sequence[str]],
    history: History,
    kind: Kind,
    least: float,
) -> list[tuple[int, Sample]]:
    """Rows with the samples of the history that they are alike to; of many, the likeliest."""
    keys = bands(signatures)
    order = np.argsort(keys, axis=None, kind="stable")
    known, rows = keys.ravel()[order], order // keys.shape[1]
    found: list[tuple[int, Sample]] = []
    own: dict[int, frozenset[int]] = {}
    for ids, old in history.blocks(kind):
        first, second = _shared(known, rows, bands(old))
        likeness = estimate(signatures, old, first, second)
        pairs = [
            (row, ids[number])
            for row, number in _likeliest(first, second, likeness, least - ESTIMATE_MARGIN)
        ]
        samples = history.samples(sorted({name for _, name in pairs}))
        for row, name in pairs:
            if name not in samples:
                continue
            if row not in own:
                own[row] = word_keys(tokens[row])
            if _jaccard(own[row], samples[name].keys[kind]) >= least:
                found.append((row, samples[name]))
    return found


def _likeliest(
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    likeness: npt.NDArray[np.float64],
    least: float,
) -> Iterator[tuple[int, int]]:
    """Pairs of at least this likeness; of each `first` the `MOST_KIN` most alike."""
    order = np.lexsort((second, -likeness, first))
    order = order[likeness[order] >= least]
    number = dict.fromkeys(first[order].tolist(), 0)
    for row, other in zip(first[order].tolist(), second[order].tolist(), strict=True):
        number[row] += 1
        if number[row] <= MOST_KIN:
            yield row, other


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


def _jaccard(one: frozenset[Any], two: frozenset[Any]) -> float:
    shared = len(one & two)
    return shared / (len(one) + len(two) - shared)


def _components(pairs: Pairs, rows: int) -> npt.NDArray[np.int64]:
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(rows, rows))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _coded(pairs: Pairs, base: int) -> npt.NDArray[np.int64]:
    return pairs[:, 0] * np.int64(max(base, 1)) + pairs[:, 1]


def _decoded(codes: npt.NDArray[np.int64], base: int) -> Pairs:
    return np.stack(np.divmod(codes, max(base, 1)), axis=1)
