"""The audit log: every administrative act and automatic decision, in an HMAC chain.

An entry is written in the transaction of the act itself, so that neither exists alone. Each
entry's digest covers its content and the digest before it, and a sealed row tells where the
chain ends. `registry.audit_check` finds what was tampered with.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from registry.audit_check import Head, check
from registry.audit_digest import GENESIS, digest_of, key_id_of
from registry.audit_head import HEAD_ROW, is_new, is_sealed, lock, seal
from registry.errors import AuditError
from registry.models import AuditEntry, AuditHead

__all__ = ["GENESIS", "entries", "head", "record", "verify"]


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
    """Append one entry to the chain, in the caller's write transaction.

    Other writers wait for the head until that transaction ends, so lock what else is to be
    changed before. Raises `AuditError` where the head is gone. One that was tampered with is not
    sealed again, so that no later entry covers it up.
    """
    row = lock(session)
    is_genuine = is_sealed(row, {key_id_of(key): key}) or is_new(session, row)
    entry = AuditEntry(
        sequence=row.sequence + 1,
        at=now,
        actor=actor,
        action=action,
        subject=subject,
        details=details or {},
        previous_digest=row.digest,
        digest="",
        key_id=key_id_of(key),
    )
    entry.digest = digest_of(entry, key)
    row.sequence, row.digest, row.key_id, row.seal = entry.sequence, entry.digest, None, None
    if is_genuine:
        seal(row, key)
    session.add(entry)
    session.add(row)
    session.flush()
    return entry


def head(session: Session, *, now: datetime) -> Head:
    """Where the chain ends, to be kept elsewhere. Raises `AuditError` where that is not sealed."""
    row = session.get(AuditHead, HEAD_ROW)
    if row is None or row.seal is None or row.key_id is None:
        raise AuditError(
            "the end of the audit log is not sealed, so it cannot be anchored: "
            "see 'kalimtak audit verify'"
        )
    return Head(row.sequence, row.digest, row.key_id, row.seal, now)


def verify(session: Session, *, key: bytes) -> int | None:
    """The sequence number of the first entry that was altered, moved or follows a gap, or None."""
    fault = check(session, keys=[key]).fault
    return None if fault is None else fault.sequence


def entries(
    session: Session,
    *,
    limit: int,
    before: int | None = None,
    action: str | None = None,
    actors: Sequence[str] | None = None,
    subject: str | None = None,
    since: datetime | None = None,
) -> Sequence[AuditEntry]:
    """The latest entries, newest first: those before a sequence number, with these fields."""
    query = select(AuditEntry).order_by(col(AuditEntry.sequence).desc()).limit(limit)
    if before is not None:
        query = query.where(col(AuditEntry.sequence) < before)
    if since is not None:
        query = query.where(col(AuditEntry.at) >= since)
    if actors is not None:
        query = query.where(col(AuditEntry.actor).in_(actors))
    for column, wanted in (
        (AuditEntry.action, action),
        (AuditEntry.subject, subject),
    ):
        if wanted is not None:
            query = query.where(col(column) == wanted)
    return session.exec(query).all()
