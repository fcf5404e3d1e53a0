"""Finds what was done to the audit log: an edit, a deletion, a reordering, a truncation.

A truncated chain is sound in itself. The sealed head in the database tells how long it was,
unless an older copy of that row was put back with it; then only a head that was kept outside
(an anchor) tells.
"""

import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import select as select_rows
from sqlmodel import Session, col

from registry.audit_digest import GENESIS, digest_of, key_id_of, seal_of
from registry.audit_head import HEAD_ROW, is_new, is_sealed
from registry.errors import AuditError
from registry.models import AuditEntry, AuditHead

READ_ROWS = 1_000


@dataclass(frozen=True)
class Head:
    """Where the chain ended at a moment: enough to find later that it was cut or rewritten."""

    sequence: int
    digest: str
    key_id: str
    seal: str
    at: datetime

    def to_json(self) -> str:
        """One line, as an anchor is kept."""
        return json.dumps({**asdict(self), "at": self.at.isoformat()}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Head":
        """Undo `to_json`. Raises `AuditError`."""
        try:
            found = json.loads(text)
            at = datetime.fromisoformat(found["at"])
            sequence = found["sequence"]
            digest, key_id, seal = (str(found[name]) for name in ("digest", "key_id", "seal"))
        except (ValueError, KeyError, TypeError) as error:
            raise AuditError("the anchor is not what 'kalimtak audit head' writes") from error
        if type(sequence) is not int:
            raise AuditError("the anchor is not what 'kalimtak audit head' writes")
        return Head(sequence, digest, key_id, seal, at)


@dataclass(frozen=True)
class Fault:
    """The first thing that is wrong, and at which entry."""

    sequence: int
    what: str


@dataclass(frozen=True)
class Verification:
    """What an examination of the whole chain has found."""

    num_entries: int
    last_digest: str
    fault: Fault | None


def check(session: Session, *, keys: Sequence[bytes], anchor: Head | None = None) -> Verification:
    """Go through the whole chain, in bounded memory.

    `keys`: all that entries may be sealed with. Raises `AuditError` for an anchor that none
    of them has sealed.
    """
    known = {key_id_of(key): key for key in keys}
    if anchor is not None:
        _check_anchor(anchor, known)
    walk = _Walk(known, anchor)
    query = select_rows(AuditEntry.__table__).order_by(col(AuditEntry.sequence))  # type: ignore[attr-defined]
    with session.connection().execute(query, execution_options={"yield_per": READ_ROWS}) as rows:
        for row in rows.mappings():
            fault = walk.step(AuditEntry(**row))
            if fault is not None:
                return Verification(walk.count, walk.previous, fault)
    head = session.get(AuditHead, HEAD_ROW)
    may_lack_seal = head is not None and is_new(session, head)
    return Verification(walk.count, walk.previous, walk.end(head, may_lack_seal=may_lack_seal))


class _Walk:
    """Goes along the chain from its beginning."""

    def __init__(self, known: dict[str, bytes], anchor: Head | None) -> None:
        self._known, self._anchor = known, anchor
        self.count, self.previous = 0, GENESIS

    def step(self, entry: AuditEntry) -> Fault | None:
        """What is wrong with the next entry."""
        expected, found = self.count + 1, entry.sequence
        if found != expected:
            gap = f"{expected}" if found == expected + 1 else f"{expected} to {found - 1}"
            return Fault(expected, f"entry {gap} is missing: deleted, or given another number")
        if not self._is_genuine(entry):
            return Fault(found, self._complaint(entry))
        if entry.previous_digest != self.previous:
            return Fault(found, "does not follow the entry before it: moved or put in")
        anchored = self._anchor if self._anchor and self._anchor.sequence == found else None
        if anchored is not None and entry.digest != anchored.digest:
            return Fault(found, "is not the one that was anchored: the chain was rewritten")
        self.count, self.previous = found, entry.digest
        return None

    def end(self, head: AuditHead | None, *, may_lack_seal: bool) -> Fault | None:
        """What is wrong with where the chain ends."""
        after = self.count + 1
        if self._anchor is not None and self._anchor.sequence > self.count:
            return Fault(
                after,
                f"is missing, and all up to {self._anchor.sequence}, which was anchored "
                f"{self._anchor.at:%Y-%m-%d %H:%M} UTC: the chain was truncated",
            )
        if head is None:
            return Fault(after, "cannot be ruled out: the head of the chain was deleted")
        if head.sequence > self.count:
            return Fault(
                after, f"is missing, and all up to {head.sequence}: the chain was truncated"
            )
        is_vouched_for = may_lack_seal or is_sealed(head, self._known)
        if (head.sequence, head.digest) != (self.count, self.previous) or not is_vouched_for:
            return Fault(after, "cannot be ruled out: the head of the chain was altered")
        return None

    def _is_genuine(self, entry: AuditEntry) -> bool:
        if entry.key_id is None:
            candidates = list(self._known.values())
        else:
            candidates = [key for name, key in self._known.items() if name == entry.key_id]
        return any(hmac.compare_digest(entry.digest, digest_of(entry, key)) for key in candidates)

    def _complaint(self, entry: AuditEntry) -> str:
        if entry.key_id is not None and entry.key_id not in self._known:
            return f"was sealed with key {entry.key_id}, which is not at hand"
        return "was edited, or moved from another place"


def _check_anchor(anchor: Head, known: dict[str, bytes]) -> None:
    key = known.get(anchor.key_id)
    if key is None or not hmac.compare_digest(
        anchor.seal, seal_of(anchor.sequence, anchor.digest, key)
    ):
        raise AuditError("the anchor is not from this installation, or was altered")
