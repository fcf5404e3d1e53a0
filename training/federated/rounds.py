"""The coordinator's part: sends an adapter to all sites, and averages what comes back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from training.federated.averaging import Averaging, Contribution, Randomness, average
from training.federated.privacy import epsilon_of
from training.federated.updates import Update, read_update, write_update
from training.transport import Packed, pack, unpack


@dataclass(frozen=True, kw_only=True)
class Returned:
    """All that leaves a site in a round."""

    adapter: Packed
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class Judged:
    """All that a site tells of how well an adapter does there."""

    loss: float
    """Nats per learned token, of its held-out answers."""
    num_samples: int


class Sites(Protocol):
    """Who takes part. Implementations let all sites work at once."""

    def learn(self, turn: int, start: Packed | None) -> list[Returned]:
        """What every site makes of `start` (None: the bare base) in round `turn`, from 0."""
        ...

    def judge(self, adapter: Packed) -> list[Judged]:
        """How well `adapter` does at every site."""
        ...


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """What a round came to."""

    num_samples: tuple[int, ...]
    """By site."""
    validation_loss: float
    """Of the average, over the sites' held-out answers, weighted by their number."""
    rank: int
    """Of the average."""
    lost: float
    """Share of the average's squared norm that its rank could not hold."""
    num_clipped: int
    """Sites whose step was shortened."""
    epsilon: float
    """Spent so far at the settings' δ; infinite without noise."""


def federate(
    sites: Sites,
    *,
    num_rounds: int,
    averaging: Averaging,
    out: Path,
    on_round: Callable[[RoundReport], None] = lambda _: None,
    randomness: Randomness = os.urandom,
) -> list[RoundReport]:
    """Learns for `num_rounds` at all sites, and leaves the last average as an adapter in `out`.

    `randomness` is where the noise comes from.
    Raises a TrainingError where the sites' adapters do not fit each other.
    """
    current: Packed | None = None
    before: Update | None = None
    reports = []
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(num_rounds):
            returned = sites.learn(turn, current)
            folders = [
                unpack(one.adapter, Path(scratch) / f"{turn}-{place}")
                for place, one in enumerate(returned)
            ]
            contributions = [
                Contribution(update=read_update(folder), num_samples=one.num_samples)
                for folder, one in zip(folders, returned, strict=True)
            ]
            averaged = average(before, contributions, averaging, randomness=randomness)
            folder = Path(scratch) / f"{turn}-average"
            write_update(averaged.update, folder, like=folders[0])
            # What sites go on from is what was written, in float32.
            before, current = read_update(folder), pack(folder)
            judged = sites.judge(current)
            reports.append(
                RoundReport(
                    num_samples=tuple(one.num_samples for one in returned),
                    validation_loss=_weighted(judged),
                    rank=max(layer.rank for layer in averaged.update.values()),
                    lost=averaged.lost,
                    num_clipped=averaged.num_clipped,
                    epsilon=epsilon_of(
                        noise_multiplier=averaging.noise_multiplier,
                        num_rounds=turn + 1,
                        delta=averaging.delta,
                    ),
                )
            )
            on_round(reports[-1])
        assert current is not None
        unpack(current, out)
    return reports


def _weighted(judged: Sequence[Judged]) -> float:
    return sum(one.loss * one.num_samples for one in judged) / sum(
        one.num_samples for one in judged
    )
