"""Ways to tell which texts repeat another, compared on the same texts: speed, recall, precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.curation_data import Writer
from benchmarks.results import Figure


def deduplicators() -> dict[str, Callable[[Sequence[str]], Sequence[bool]]]:
    """Ways to tell which texts repeat another, ours first."""
    return {"kalimtak": _neardup, "datasketch": _datasketch, "semhash": _semhash}


def _neardup(texts: Sequence[str]) -> Sequence[bool]:
    import polars as pl

    from flows.curation.neardup import near_duplicates
    from flows.curation.signatures import sign
    from registry.settings_curation import NearDuplicateSettings

    settings, nothing = NearDuplicateSettings(), np.zeros(len(texts), np.bool_)
    signatures = sign(pl.Series(texts), min_words=settings.min_words)
    found = near_duplicates(texts, signatures, nothing, np.ones(len(texts)), settings)
    return found.repeats.tolist()


def _datasketch(texts: Sequence[str]) -> Sequence[bool]:
    """Its documentation's MinHashLSH: words, 128 permutations, threshold 0.7."""
    from datasketch import MinHash, MinHashLSH

    lsh, found = MinHashLSH(threshold=0.7, num_perm=128), []
    for place, text in enumerate(texts):
        minhash = MinHash(num_perm=128)
        minhash.update_batch([word.encode() for word in text.lower().split()])
        found.append(bool(lsh.query(minhash)))
        lsh.insert(place, minhash)
    return found


def _semhash(texts: Sequence[str]) -> Sequence[bool]:
    """With hashed words as its encoder: no model can be downloaded here."""
    from semhash import SemHash
    from sklearn.feature_extraction.text import HashingVectorizer

    class Encoder:
        def encode(self, inputs: Sequence[str], **_: object) -> np.ndarray:
            vectors = HashingVectorizer(n_features=1024).transform(inputs)
            return np.asarray(vectors.toarray(), np.float32)

    kept = SemHash.from_records(list(texts), model=Encoder()).self_deduplicate(threshold=0.8)
    selected = set(kept.selected)
    return [text not in selected for text in texts]


def compare_deduplicators(number: int) -> list[Figure]:
    """Speed, recall and precision on the same texts, half of them template mates."""
    write = Writer(2)
    clean = [write.prose() if place % 2 else write.templated() for place in range(number * 4 // 5)]
    copies = [write.edited(text) for text in clean[: number // 5]]
    found = {}
    for name, tell in deduplicators().items():
        begin = time.process_time()
        flags = tell([*clean, *copies])
        seconds = time.process_time() - begin
        hits, wrong = sum(flags[len(clean) :]), sum(flags[: len(clean)])
        found[name] = (
            (len(clean) + len(copies)) / seconds,
            hits / len(copies),
            hits / max(1, hits + wrong),
        )
    ours, figures = found.pop("kalimtak"), []
    for place, (what, unit, goal) in enumerate(
        (("speed", "texts/CPU-s", None), ("recall", "", 0.98), ("precision", "", 0.99))
    ):
        for peer, theirs in found.items():
            figures.append(
                Figure(
                    f"near-duplicates: {what}",
                    ours[place],
                    unit,
                    peer=peer,
                    peer_value=theirs[place],
                    goal=None if goal is None else f"≥ {goal:g}",
                    holds=None if goal is None else ours[place] >= goal,
                )
            )
    return figures
