"""Everything that was curated before, as far as a batch must be compared with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import polars as pl
from sqlmodel import Session

from flows.curation import storing
from flows.curation.neardup import History, Sample
from flows.curation.signatures import NUM_PERMUTATIONS, Signatures, sample_text
from registry.crypto import Keyring


class Rehearsed:
    """What a dry run would have written so far: its batches must not repeat each other either."""

    def __init__(self) -> None:
        self.contents: set[str] = set()
        self.sides: dict[str, str] = {}
        self.samples: dict[str, Sample] = {}
        self.blocks: list[tuple[Sequence[str], Signatures]] = []

    def remember(self, frame: pl.DataFrame) -> None:
        """Take these samples for written."""
        self.contents |= set(frame["content_hash"])
        self.sides |= dict(zip(frame["cluster_id"], frame["split"], strict=True))
        signed = frame.filter(pl.col("signature").is_not_null())
        rows = signed.select("content_hash", "messages", "input_text", "target", "source")
        self.samples |= {
            name: Sample(name, sample_text(messages, request, target), source == "corrected")
            for name, messages, request, target, source in rows.iter_rows()
        }
        blob = b"".join(signed["signature"])
        signatures = np.frombuffer(blob, np.uint8).reshape(-1, NUM_PERMUTATIONS)
        self.blocks.append((signed["content_hash"].to_list(), signatures))


class Past:
    """What the database holds, and what a dry run would have added to it."""

    def __init__(
        self, session: Session, keyring: Keyring, *, workload: str, rehearsed: Rehearsed
    ) -> None:
        self._session = session
        self._keyring = keyring
        self._workload = workload
        self._rehearsed = rehearsed

    def known_contents(self, hashes: Sequence[str]) -> set[str]:
        """Those of the contents that were curated before."""
        found = storing.known_contents(self._session, hashes, workload=self._workload)
        return found | (self._rehearsed.contents & set(hashes))

    def known_sides(self, clusters: Sequence[str]) -> dict[str, str]:
        """The side of each cluster that has one."""
        found = storing.known_sides(self._session, clusters, workload=self._workload)
        return self._rehearsed.sides | found

    def history(self, seen: Collection[str], standing: Mapping[str, str]) -> History:
        """What near-duplicates are compared with: samples that are, and will stay, selected.

        `standing`: content of those among the interactions `seen` that pass the filters now.
        """
        fallen = set(seen) - set(standing)

        def blocks() -> Iterator[tuple[Sequence[str], Signatures]]:
            yield from storing.signature_blocks(self._session, workload=self._workload)
            yield from self._rehearsed.blocks

        def samples(ids: Sequence[str]) -> dict[str, Sample]:
            ours = {
                name: self._rehearsed.samples[name]
                for name in ids
                if name in self._rehearsed.samples
            }
            written = storing.samples(
                self._session, self._keyring, ids, fallen=fallen, standing=standing
            )
            return ours | written

        return History(blocks, samples)
