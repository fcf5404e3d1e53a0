"""Labels worth asking for: python -m benchmarks.bench_active [--quick] [--out FILE]

A scorer starts from a few labels of demo-world answers; then labels are added in batches,
either chosen at random or as the reviewers' queue chooses them (uncertainty × diversity, or
uncertainty alone). Measured is the accuracy of the scorer, not of a trained model, on other
answers, and how many labels each way needs for the accuracy that random choice has at the end.
A reviewer is as fickle as everybody in the demo: one label in ten is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.bench_discriminator import ratings_of
from benchmarks.demo_world import Rated, use
from benchmarks.results import Figure, write_results
from flows.curation import active
from registry.features import Features, Floats, extract
from registry.scorer import Scorer
from training.discriminator import fit

START_LABELS = 60
BATCH = 20
NUM_TEST = 1_000
GOAL = 0.60
CHANCES = 0.5
"""An answer is called good above this."""

Choose = Callable[[Floats, Sequence[Features], np.random.Generator], npt.NDArray[np.int64]]


def at_random(
    chances: Floats, _features: Sequence[Features], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Any of them."""
    return rng.choice(len(chances), BATCH, replace=False)


def as_the_queue(
    chances: Floats, features: Sequence[Features], _rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Those that reviewers would be shown."""
    return active.pick(chances, features, num=BATCH)


def least_certain(
    chances: Floats, _features: Sequence[Features], _rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Uncertainty without diversity."""
    return np.argsort(-active.uncertainty(chances), kind="stable")[:BATCH]


WAYS: dict[str, Choose] = {
    "random": at_random,
    "uncertainty × diversity": as_the_queue,
    "uncertainty": least_certain,
}


class World:
    """A pool to choose from, and answers to be right about."""

    def __init__(self, *, pool: int, seed: int) -> None:
        self.pool = use(pool, seed=seed)
        self.features = [extract(one.sample) for one in self.pool]
        self.test = [extract(one.sample) for one in use(NUM_TEST, seed=seed + 1000)]
        self.good = np.array([one.is_good for one in use(NUM_TEST, seed=seed + 1000)])

    def curve(self, choose: Choose, *, num_labels: int, seed: int) -> list[float]:
        """Accuracy with `START_LABELS`, and after each further batch."""
        rng = np.random.default_rng(seed)
        labelled = [int(row) for row in rng.choice(len(self.pool), START_LABELS, replace=False)]
        scorer = _fitted([self.pool[row] for row in labelled])
        curve = [self.accuracy(scorer)]
        while len(labelled) < num_labels:
            rest = np.setdiff1d(np.arange(len(self.pool)), labelled)
            features = [self.features[row] for row in rest]
            chances = np.array([scorer.score_features(each) for each in features])
            labelled += [int(rest[place]) for place in choose(chances, features, rng)]
            scorer = _fitted([self.pool[row] for row in labelled])
            curve.append(self.accuracy(scorer))
        return curve

    def accuracy(self, scorer: Scorer) -> float:
        """Share of other answers that the scorer calls what the rubric calls them."""
        found = np.array([scorer.score_features(each) for each in self.test]) > CHANCES
        return float((found == self.good).mean())


def _fitted(rated: Sequence[Rated]) -> Scorer:
    return fit(ratings_of(rated), rule=[one.rule_score for one in rated]).scorer


def labels_needed(curve: Sequence[float], target: float) -> float:
    """Labels at which a curve of means first reaches `target`, between batches by a line."""
    for place, value in enumerate(curve):
        if value >= target:
            if place == 0:
                return START_LABELS
            before = curve[place - 1]
            return START_LABELS + BATCH * (place - 1 + (target - before) / (value - before))
    return float("inf")


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few labels")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(arguments)
    seeds, pool, num_labels = (1, 400, 120) if options.quick else (options.seeds, 2_000, 500)
    worlds = [World(pool=pool, seed=seed) for seed in range(1, seeds + 1)]
    curves = {
        name: np.mean(
            [
                world.curve(choose, num_labels=num_labels, seed=seed)
                for seed, world in enumerate(worlds)
            ],
            axis=0,
        )
        for name, choose in WAYS.items()
    }
    figures = figures_of(curves, num_labels=num_labels)
    show(curves, figures)
    sizes = {
        "seeds": seeds,
        "pool": pool,
        "labels at the start": START_LABELS,
        "labels at the end": num_labels,
        "labels in a batch": BATCH,
        "accuracy by labels": {name: np.round(curve, 4).tolist() for name, curve in curves.items()},
    }
    write_results("active", figures, sizes=sizes, out=options.out)


def figures_of(curves: dict[str, npt.NDArray[np.float64]], *, num_labels: int) -> list[Figure]:
    """Labels for the accuracy that random choice ends with, and what each way ends with."""
    # The last three points, since a single one is noisy.
    target = float(curves["random"][-3:].mean())
    figures = [Figure("accuracy of the scorer, random choice, at the end", target, "share")]
    for name, curve in curves.items():
        figures.append(Figure(f"accuracy at the end, {name}", float(curve[-1]), "share"))
        if name == "random":
            continue
        needed = labels_needed(curve.tolist(), target)
        share = needed / (num_labels - BATCH)
        figures.append(
            Figure(
                f"labels for the same accuracy, {name}",
                share,
                "of those of random choice",
                goal=f"≤ {GOAL:g}",
                holds=share <= GOAL,
            )
        )
    return figures


def show(curves: dict[str, npt.NDArray[np.float64]], figures: Sequence[Figure]) -> None:
    """The curves and the figures, as tables."""
    table = Table("labels", *curves)
    for place in range(len(curves["random"])):
        values = (f"{curve[place]:.3f}" for curve in curves.values())
        table.add_row(str(START_LABELS + place * BATCH), *values)
    Console().print(table)
    for one in figures:
        holds = "" if one.holds is None else f"  goal {one.goal}: {'yes' if one.holds else 'no'}"
        Console().print(f"{one.name}: {one.value:.3f} {one.unit}{holds}")


if __name__ == "__main__":
    main()
