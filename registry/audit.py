"""The audit log: every administrative act and automatic decision, in an HMAC chain.

An entry is written in the transaction of the act itself, so that neither exists alone.
"""

import hashlib
import hmac
import json
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from registry.models import AuditEntry

GENESIS = "0" * 64


def record(
    session: Session,
    *,
    key: bytes,
    actor: str,
    action: str,
    subject: str,
    now: datetime,
    details: dict[str, Any] | None = None,
) -> AuditEntry:
    """Append one entry. The caller's transaction must hold the write lock."""
    last = session.exec(select(AuditEntry).order_by(col(AuditEntry.sequence).desc())).first()
    entry = AuditEntry(
        sequence=last.sequence + 1 if last else 1,
        at=now,
        actor=actor,
        action=action,
        subject=subject,
        details=details or {},
        previous_digest=last.digest if last else GENESIS,
        digest="",
    )
    entry.digest = _digest(entry, key)
    session.add(entry)
    session.flush()
    return entry


def verify(session: Session, *, key: bytes) -> int | None:
    """The sequence number of the first entry that was altered, moved or follows a gap, or None."""
    expected, previous = 1, GENESIS
    for entry in session.exec(select(AuditEntry).order_by(col(AuditEntry.sequence))):
        sound = (
            entry.sequence == expected
            and entry.previous_digest == previous
            and hmac.compare_digest(entry.digest, _digest(entry, key))
        )
        if not sound:
            return entry.sequence
        expected, previous = expected + 1, entry.digest
    return None


def _digest(entry: AuditEntry, key: bytes) -> str:
    content = json.dumps(
        [
            entry.sequence,
            entry.at.isoformat(),
            entry.actor,
            entry.action,
            entry.subject,
            entry.details,
            entry.previous_digest,
        ],
        sort_keys=True,
        ensure_ascii=False,
    )
    return hmac.new(key, content.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
