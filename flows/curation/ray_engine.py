"""The same steps on Ray Data: rows by partition, near-duplicates by a shuffle of their bands.

Rows with one key of a band meet in one task, as they stand side by side in one process, so that
the pairs are the same. Needs a connection to Ray.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import ray

from flows.curation.neardup import Pairs, band_pairs
from flows.curation.rows import Page, RowSteps
from flows.curation.signatures import Signatures, bands

PARTITION_ROWS = 5_000
NUM_PARTITIONS = 16
"""Tasks that the keys of all bands are divided among."""


class RayEngine:
    """The Ray cluster that this process is connected to."""

    def __init__(self, *, partition_rows: int = PARTITION_ROWS) -> None:
        """`partition_rows`: rows that one task works on."""
        self._partition_rows = partition_rows
        ray.data.DataContext.get_current().enable_progress_bars = False

    def pages(self, steps: RowSteps, frames: Sequence[pl.DataFrame]) -> Iterator[Page]:
        """One page for each partition, in their order."""

        def apply(table: pa.Table) -> pa.Table:
            frame = pl.DataFrame(pl.from_arrow(table))
            number = frame["partition"][0]
            page = steps(frame.drop("partition"))
            return pa.table({"number": [number], "page": [pickle.dumps(page)]})

        for frame in frames:
            if frame.is_empty():
                yield steps(frame)
                continue
            parts = [
                part.with_columns(partition=pl.lit(number)).to_arrow()
                for number, part in enumerate(frame.iter_slices(self._partition_rows))
            ]
            found = ray.data.from_arrow(parts).map_batches(
                apply, batch_size=None, batch_format="pyarrow"
            )
            rows = sorted(found.take_all(), key=lambda row: row["number"])
            # What a task of our own has just pickled.
            yield from (pickle.loads(row["page"]) for row in rows)

    def candidate_pairs(self, signatures: Signatures) -> Pairs:
        """What `neardup.candidate_pairs` finds, each band's key compared in one task."""
        keys = bands(signatures)
        if not len(keys):
            return np.empty((0, 2), np.int64)
        number, width = keys.shape
        table = pa.table(
            {
                "key": keys.ravel(),
                "following": np.roll(keys, -1, axis=1).ravel(),
                "row": np.repeat(np.arange(number), width),
                "partition": (keys % np.uint64(NUM_PARTITIONS)).ravel().astype(np.int64),
            }
        )
        blocks = [table.slice(start, 500_000) for start in range(0, len(table), 500_000)]
        grouped = ray.data.from_arrow(blocks).groupby("partition", num_partitions=NUM_PARTITIONS)
        found = grouped.map_groups(_pairs_of_partition, batch_format="numpy")
        pairs = [np.stack([batch["first"], batch["second"]], axis=1) for batch in _batches(found)]
        return np.unique(np.concatenate([np.empty((0, 2), np.int64), *pairs]), axis=0)


def _pairs_of_partition(batch: dict[str, Any]) -> dict[str, Any]:
    order = np.argsort(batch["row"], kind="stable")
    rows = batch["row"][order]
    pairs = rows[band_pairs(batch["key"][order], batch["following"][order])]
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return {"first": pairs[:, 0], "second": pairs[:, 1]}


def _batches(dataset: Any) -> Iterator[dict[str, Any]]:
    yield from dataset.iter_batches(batch_size=None, batch_format="numpy")
