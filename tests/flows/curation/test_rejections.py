import random

import polars as pl

from flows.curation.rejections import fit

WORDS = [f"word{i}" for i in range(300)]


def texts(number: int, *marks: str, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join([*rng.choices(WORDS, k=20), rng.choice(marks)]) for _ in range(number)]


def test_it_learns_what_reviewers_reject() -> None:
    bad, good = texts(150, "vile", "nasty", seed=1), texts(150, "kind", "calm", seed=2)
    mixed = [text for pair in zip(bad, good, strict=True) for text in pair]
    found = fit(mixed, [True, False] * 150)
    assert found is not None
    chances = found(pl.Series(["something vile here", "something kind here"])).to_list()
    assert chances[0] > 0.5 > chances[1]


def test_it_stays_out_of_it_without_enough_decisions_or_a_pattern_in_them() -> None:
    assert fit(texts(60, "vile", seed=1), [True] * 50 + [False] * 10) is None
    noise, rng = texts(400, "same", seed=3), random.Random(4)
    assert fit(noise, [rng.random() < 0.5 for _ in noise]) is None
