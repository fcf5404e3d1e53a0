"""Everything that was curated before, as far as a batch must be compared with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from sqlmodel import Session

from flows.curation import storing
from flows.curation.kin import History, Kind, Sample
from flows.curation.known import KnownSignatures
from flows.curation.rehearsed import Rehearsed
from registry.crypto import Keyring


class Past:
    """What the database holds, and what a dry run would have added to it."""

    def __init__(
        self,
        session: Session,
        keyring: Keyring,
        *,
        workload: str,
        signatures: KnownSignatures,
        rehearsed: Rehearsed | None,
    ) -> None:
        self._session = session
        self._keyring = keyring
        self._workload = workload
        self._signatures = signatures
        self._rehearsed = rehearsed

    def known_contents(self, hashes: Sequence[str]) -> set[str]:
        """Those of the contents that were curated before."""
        found = storing.known_contents(self._session, hashes, workload=self._workload)
        return found | (self._rehearsed.known_contents(hashes) if self._rehearsed else set())

    def equal_requests(self, hashes: Collection[str]) -> Iterator[tuple[str, Sample]]:
        """Requests among these with the oldest sample of each side they stand on."""
        yield from storing.equal_requests(self._session, hashes, workload=self._workload)
        if self._rehearsed:
            yield from self._rehearsed.equal_requests(hashes)

    def history(self, seen: Collection[str], standing: Mapping[str, str]) -> History:
        """What near-duplicates are compared with; what will stay selected counts.

        `standing`: content of those among the interactions `seen` that pass the filters now.
        """
        fallen = set(seen) - set(standing)

        def samples(ids: Sequence[str], kind: Kind) -> dict[str, Sample]:
            found = storing.samples(
                self._session, self._keyring, ids, kind, fallen=fallen, standing=standing
            )
            return found | (self._rehearsed.samples(ids, kind) if self._rehearsed else {})

        return History(self._signatures.blocks, samples)
