"""Whether what is scored still looks like what a scorer was fitted on.

Population stability index of each number of `registry.features`, of the share of names that
fitting never met, and of the score itself: Σ (p − q)·ln(p / q) over ten bins whose edges are
the deciles of the ratings that were fitted on. Custom has it that below 0.1 nothing has
changed, and above 0.25 much has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from registry.features import NUMBERS, Features, Floats, Sample, extract
from registry.scorer import Scorer

NUM_BINS = 10
SMOOTHING = 0.5
"""Added to each count, so that an empty bin is rare rather than impossible."""
NOVELTY, SCORE = "names never met", "score"


def reference(scorer: Scorer, features: Sequence[Features]) -> dict[str, Any]:
    """Edges and shares of the bins of each input, to be kept in the scorer's manifest."""
    found = {}
    for name, values in _inputs(scorer, features, fitted=True).items():
        edges = np.unique(np.quantile(values, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
        found[name] = {"edges": edges.tolist(), "counts": _counts(values, edges).tolist()}
    return found


def stability(
    scorer: Scorer, kept: Mapping[str, Any], samples: Sequence[Sample]
) -> dict[str, float]:
    """The population stability index of each input on `samples`, worst first; none of none."""
    if not samples:
        return {}
    inputs = _inputs(scorer, [extract(sample) for sample in samples])
    found = {
        name: psi(
            np.asarray(kept[name]["counts"], float),
            _counts(values, np.asarray(kept[name]["edges"], float)),
        )
        for name, values in inputs.items()
        if name in kept
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def psi(before: Floats, now: Floats) -> float:
    """Σ (p − q)·ln(p / q) of two histograms over the same bins."""
    p = (before + SMOOTHING) / (before + SMOOTHING).sum()
    q = (now + SMOOTHING) / (now + SMOOTHING).sum()
    return float(((p - q) * np.log(p / q)).sum())


def _inputs(
    scorer: Scorer, features: Sequence[Features], *, fitted: bool = False
) -> dict[str, Floats]:
    numbers = np.array([each.numbers for each in features]).reshape(-1, len(NUMBERS))
    found = {name: numbers[:, place] for place, name in enumerate(NUMBERS)}
    found[NOVELTY] = np.array([scorer.novelty(each, fitted=fitted) for each in features])
    found[SCORE] = np.array([scorer.score_features(each) for each in features])
    return found


def _counts(values: Floats, edges: Floats) -> Floats:
    """(len(edges) + 1,) how many values fall into each bin."""
    places = np.searchsorted(edges, values, side="left")
    return np.bincount(places, minlength=len(edges) + 1).astype(float)
