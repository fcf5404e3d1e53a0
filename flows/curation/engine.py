"""Where the steps run. Every engine applies the same pure functions, with the same result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import polars as pl

from flows.curation import neardup
from flows.curation.neardup import Pairs
from flows.curation.rows import Page, RowSteps
from flows.curation.signatures import Signatures


class Engine(Protocol):
    """Applies row steps to frames and finds pairs that may be alike."""

    def pages(self, steps: RowSteps, frames: Iterable[pl.DataFrame]) -> Iterator[Page]:
        """The steps applied to each frame, in the order of the frames."""
        ...

    def candidate_pairs(self, signatures: Signatures) -> Pairs:
        """What `neardup.candidate_pairs` finds."""
        ...


class LocalEngine:
    """This process."""

    def pages(self, steps: RowSteps, frames: Iterable[pl.DataFrame]) -> Iterator[Page]:
        """One after the other."""
        return map(steps, frames)

    def candidate_pairs(self, signatures: Signatures) -> Pairs:
        """Band by band."""
        return neardup.candidate_pairs(signatures)
