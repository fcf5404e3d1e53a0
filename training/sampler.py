"""Which examples each step learns from: a pure function of seed and step.

Since nothing is remembered between steps, a resumed run draws what the unbroken one
would have drawn, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt


class Sampler:
    """Endless passes over a dataset, each in its own order."""

    def __init__(self, groups: Sequence[str], *, global_batch: int, seed: int, balance: bool):
        """`groups` holds one name per example.

        With `balance` every group has the same share of the draws, so that a group with
        few examples is seen more often; otherwise every example is seen equally often.
        """
        if not groups:
            raise ValueError("groups must not be empty")
        members: dict[str, list[int]] = {}
        for index, name in enumerate(groups):
            members.setdefault(name if balance else "", []).append(index)
        self._members = [np.asarray(members[name]) for name in sorted(members)]
        self._global_batch = global_batch
        self._seed = seed
        self._order = lru_cache(maxsize=4 * len(self._members))(self._shuffled)

    def batch(self, step: int) -> list[int]:
        """The indices of the examples of step `step`, counted from 0."""
        first = step * self._global_batch
        return [self._draw(position) for position in range(first, first + self._global_batch)]

    def _draw(self, position: int) -> int:
        turn, group = divmod(position, len(self._members))
        members = self._members[group]
        epoch, place = divmod(turn, len(members))
        return int(members[self._order(group, epoch)[place]])

    def _shuffled(self, group: int, epoch: int) -> npt.NDArray[np.int64]:
        rng = np.random.default_rng([self._seed, group, epoch])
        return rng.permutation(len(self._members[group]))
