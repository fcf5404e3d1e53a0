"""Which unrated answers are worth a person's look: what the scorer is unsure of, spread widely.

Batch-mode active learning: farthest-first over the features of the least certain candidates
(after k-center, Sener and Savarese 2018), each weighed by its uncertainty. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from registry.features import NUM_HASHED, Features, Floats

CANDIDATES_PER_PICK = 8
"""A batch is spread over so many times as many of the least certain answers."""
NUM_DIRECTIONS = 64
"""Answers are compared in a random projection (Achlioptas 2003) of so many directions."""
_SEED = 7


def uncertainty(chances: Floats) -> Floats:
    """(n,) 1 where the chance of being liked is one half, 0 where it is certain."""
    return 1.0 - np.abs(2.0 * np.asarray(chances) - 1.0)


def pick(chances: Floats, features: Sequence[Features], *, num: int) -> npt.NDArray[np.int64]:
    """Rows of the `num` answers (or all there are) to label together, in the order of choice."""
    unsure = uncertainty(chances)
    num = min(num, len(unsure))
    if num == 0:
        return np.zeros(0, np.int64)
    pool = np.argsort(-unsure, kind="stable")[: num * CANDIDATES_PER_PICK]
    places = project([features[row] for row in pool])
    weights = unsure[pool] + 1e-6
    distances = np.ones(len(pool))
    chosen: list[int] = []
    for _ in range(num):
        gains = weights * distances
        gains[chosen] = -1.0
        best = int(gains.argmax())
        chosen.append(best)
        # Cosine distance to the nearest answer that is chosen already.
        distances = np.minimum(distances, 1.0 - places @ places[best])
    return pool[chosen]


def project(features: Sequence[Features]) -> Floats:
    """(n, NUM_DIRECTIONS) unit vectors whose products are near the cosines of the names."""
    signs = _directions()
    found = np.stack([signs[each.indices].sum(axis=0) for each in features]).astype(float)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, 1e-9))


def _directions() -> npt.NDArray[np.int8]:
    rng = np.random.default_rng(_SEED)
    return rng.choice(np.array([-1, 1], np.int8), size=(NUM_HASHED, NUM_DIRECTIONS))
