"""Signatures of everything that was curated before, in a file of this process alone.

They are read from the database once in a pass, and may be far more than fit into memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from sqlmodel import col, select

from flows.curation.kin import Ids, Kind
from flows.curation.signatures import NUM_PERMUTATIONS, Signatures
from registry.db import Database
from registry.models import CuratedSignature
from registry.reading import iter_frames

BLOCK_ROWS = 50_000
_KINDS: tuple[Kind, ...] = ("signature", "request_signature")
_NONE = bytes(NUM_PERMUTATIONS)


class _Block(NamedTuple):
    offset: int
    num_rows: int
    id_bytes: int
    """Bytes of the longest id."""


class KnownSignatures:
    """Ids with their signatures. The file has no name: it ends with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="kalimtak-")  # noqa: SIM115 - `close` closes it
        self._blocks: list[_Block] = []
        self._is_read = False

    def close(self) -> None:
        """Forget them."""
        self._file.close()

    def read(self, database: Database, *, workload: str) -> None:
        """Take those of all samples of the workload, unless that is done."""
        if self._is_read:
            return
        self._is_read = True
        query = (
            select(
                CuratedSignature.training_data_id,
                CuratedSignature.signature,
                CuratedSignature.request_signature,
            )
            .where(CuratedSignature.workload == workload)
            .order_by(col(CuratedSignature.training_data_id))
        )
        for frame in iter_frames(database, query, batch_rows=BLOCK_ROWS):
            self.add(frame["training_data_id"], frame)

    def add(self, ids: pl.Series, frame: pl.DataFrame) -> None:
        """Take the `signature` and `request_signature` of a frame, where there are any."""
        has_one = frame["signature"].is_not_null()
        names = np.array([name.encode() for name in ids.filter(has_one)])
        if not len(names):
            return
        offset = self._file.seek(0, os.SEEK_END)
        for kind in _KINDS:
            self._file.write(b"".join(frame[kind].filter(has_one).fill_null(_NONE)))
        self._file.write(names.tobytes())
        self._file.flush()
        self._blocks.append(_Block(offset, len(names), names.itemsize))

    def blocks(self, kind: Kind) -> Iterator[tuple[Ids, Signatures]]:
        """Ids and signatures; zeros where there is none of this kind."""
        for block in self._blocks:
            size = block.num_rows * NUM_PERMUTATIONS
            place = block.offset + _KINDS.index(kind) * size
            blob = os.pread(self._file.fileno(), size, place)
            ids = os.pread(
                self._file.fileno(),
                block.num_rows * block.id_bytes,
                block.offset + len(_KINDS) * size,
            )
            yield (
                np.frombuffer(ids, f"S{block.id_bytes}"),
                np.frombuffer(blob, np.uint8).reshape(-1, NUM_PERMUTATIONS),
            )
