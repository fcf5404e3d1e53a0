"""The quality scorer: python -m benchmarks.bench_discriminator [--quick] [--out FILE]

How well it tells good answers of the demo's world from others, beside the rule and beside
scikit-learn's logistic regression on TF-IDF 1-2-grams (where it is installed), after fitting
on people's fickle ratings; how well calibrated it is; and how long one score takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.demo_world import Rated, use
from benchmarks.results import Figure, at_least, write_results
from registry.features import MAX_CHARS, Sample
from training.discrimination import Discrimination, auc, discrimination
from training.discriminator import Fitted, Rating, fit

NUM_TEST = 2_000
ROUNDS = 3
SIZES = (300, 1_000, 3_000, 10_000)


def ratings_of(rated: Sequence[Rated]) -> list[Rating]:
    """What people said, as fitting takes it."""
    return [Rating(sample=one.sample, liked=one.liked, user=one.user, at=one.at) for one in rated]


def fitted_on(rated: Sequence[Rated]) -> tuple[Fitted, float]:
    """A scorer, and the CPU-seconds that it took."""
    start = time.process_time()
    found = fit(ratings_of(rated), rule=[one.rule_score for one in rated])
    return found, time.process_time() - start


def truth(fitted: Fitted, test: Sequence[Rated]) -> Discrimination:
    """The scorer against what the rubric says of answers to people who never rated."""
    scores = np.array([fitted.scorer.score(one.sample) for one in test])
    good = np.array([one.is_good for one in test])
    return discrimination(scores, good, np.ones(len(test)))


def peer_auc(rated: Sequence[Rated], test: Sequence[Rated]) -> tuple[float, float] | None:
    """AUC and CPU-seconds of scikit-learn's usual text classifier; None where it is missing."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError:
        return None
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000),
    )
    start = time.process_time()
    model.fit([_as_text(one) for one in rated], [one.liked for one in rated])
    spent = time.process_time() - start
    scores = model.predict_proba([_as_text(one) for one in test])[:, 1]
    return auc(scores, np.array([one.is_good for one in test])), spent


def _as_text(one: Rated) -> str:
    return f"{one.request.target_tool} {one.request.language} {one.request.text}\n{one.output}"


def score_ms(fitted: Fitted, samples: Sequence[Sample]) -> list[float]:
    """Milliseconds of CPU of each score, one by one: waiting for a busy machine is not its cost."""
    spent = []
    for sample in samples:
        start = time.thread_time()
        fitted.scorer.score(sample)
        spent.append((time.thread_time() - start) * 1000)
    return spent


def time_figures(fitted: Fitted, test: Sequence[Rated]) -> list[Figure]:
    """How long a score takes: usual answers, and one of the longest that is looked at."""
    rounds = [score_ms(fitted, [one.sample for one in test]) for _ in range(ROUNDS)]
    p50 = median(median(spent) for spent in rounds)
    p99 = median(quantiles(spent, n=100)[98] for spent in rounds)
    words = " ".join(f"word{number}" for number in range(MAX_CHARS))
    lines = "\n".join(f"Task: {words[place : place + 20]}" for place in range(0, MAX_CHARS, 20))
    most = max(
        median(
            median(
                score_ms(
                    fitted,
                    [Sample(words, f"{place} {text}", "email", "en") for place in range(100)],
                )
            )
            for _ in range(ROUNDS)
        )
        for text in (words[::-1], lines)
    )
    return [
        Figure("one score, median", p50, "ms of CPU", goal="≤ 1", holds=p50 <= 1),
        Figure("one score, 99 % of all", p99, "ms of CPU", goal="≤ 1", holds=p99 <= 1),
        Figure(
            f"one score, texts of {MAX_CHARS} characters and more",
            most,
            "ms of CPU",
            goal="≤ 1",
            holds=most <= 1,
        ),
    ]


def figures_of(sizes: Sequence[int], *, seed: int) -> list[Figure]:
    """All figures; those that do not name a size are of the largest."""
    test = use(NUM_TEST, seed=seed + 1000)
    good = np.array([one.is_good for one in test])
    rule = auc(np.array([one.rule_score for one in test]), good)
    figures = []
    fitted = None
    for size in sizes:
        rated = use(size, seed=seed)
        fitted, spent = fitted_on(rated)
        found, peer = truth(fitted, test), peer_auc(rated, test)
        figures += [
            Figure(
                f"AUC against the rubric, {size} ratings",
                found.auc,
                "",
                peer="the rule",
                peer_value=rule,
                goal="above the rule",
                holds=found.auc > rule,
            ),
            Figure(f"fitting, {size} ratings", spent, "CPU-s"),
        ]
        if peer is not None:
            name = "scikit-learn, TF-IDF 1-2-grams"
            figures.append(
                Figure(
                    f"AUC beside logistic regression, {size} ratings",
                    found.auc,
                    "",
                    peer=name,
                    peer_value=peer[0],
                    goal="≥ the peer",
                    holds=found.auc >= peer[0],
                )
            )
        if fitted.held_out is not None:
            figures.append(
                at_least(f"held-out AUC of the gate, {size} ratings", fitted.held_out.auc, "", 0.7)
            )
    assert fitted is not None
    figures.append(
        Figure(
            "calibration error of cross-fitted chances", fitted.cross_fitted.calibration_error, ""
        )
    )
    return figures + time_figures(fitted, test)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="few ratings")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--largest", type=int, default=10_000, help="most ratings fitted on")
    options = parser.parse_args(arguments)
    largest = SIZES[0] if options.quick else options.largest
    sizes = [size for size in SIZES if size <= largest]
    figures = figures_of(sizes, seed=options.seed)
    table = Table("figure", "value", "unit", "peer", "peer's", "goal", "holds")
    for one in figures:
        peer = "" if one.peer_value is None else f"{one.peer_value:.3f}"
        holds = "" if one.holds is None else ("yes" if one.holds else "no")
        table.add_row(
            one.name, f"{one.value:.3f}", one.unit, one.peer or "", peer, one.goal or "", holds
        )
    Console().print(table)
    write_results(
        "discriminator",
        figures,
        sizes={"ratings": sizes, "test answers": NUM_TEST, "seed": options.seed},
        out=options.out,
    )


if __name__ == "__main__":
    main()
