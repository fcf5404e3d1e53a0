"""The row that tells where the audit chain ends: locked by whoever appends, and sealed.

Who cannot seal can still write the row. So a seal is only ever renewed where the one before was
genuine, and made where no program can have made one: a head that was forged stays unsealed.
"""

import hmac
from collections.abc import Mapping

from sqlmodel import Session, func, select

from registry.audit_digest import key_id_of, seal_of
from registry.errors import AuditError
from registry.models import AuditEntry, AuditHead, DeploymentState, EncryptionKey

HEAD_ROW = 1


def lock(session: Session) -> AuditHead:
    """The head, held until the transaction ends. Raises `AuditError` where it is gone."""
    row = _held(session)
    if row is None:
        raise AuditError(
            "the audit log has lost its head, so nothing can be recorded and nothing was done: "
            "see 'kalimtak audit verify', and restore a backup"
        )
    return row


def seal_first(session: Session, key: bytes) -> None:
    """Vouch for the chain as it stands, before a database lists the first program's keys."""
    row = _held(session)
    if row is not None and is_new(session, row):
        seal(row, key)


def seal(row: AuditHead, key: bytes) -> None:
    """Vouch for the chain ending where the row says."""
    row.key_id, row.seal = key_id_of(key), seal_of(row.sequence, row.digest, key)


def is_sealed(row: AuditHead, keys: Mapping[str, bytes]) -> bool:
    """Whether the chain ended there, by the word of somebody who has one of the keys (by id)."""
    key = None if row.key_id is None else keys.get(row.key_id)
    if key is None or row.seal is None:
        return False
    return hmac.compare_digest(row.seal, seal_of(row.sequence, row.digest, key))


def is_new(session: Session, row: AuditHead) -> bool:
    """Whether the head is without a seal because no program has opened the database with keys.

    Each one lists them first, and entries with the name of a key were sealed. Where both are
    gone, a workload may still have been changed more often than the chain is long (once more,
    inside the transaction that tells of it).
    """
    if row.seal is not None or session.exec(select(EncryptionKey.id).limit(1)).first() is not None:
        return False
    last = session.get(AuditEntry, row.sequence)
    if last is not None and last.key_id is not None:
        return False
    generation = session.exec(select(func.max(DeploymentState.generation))).one() or 0
    return generation <= row.sequence + 1


def _held(session: Session) -> AuditHead | None:
    return session.exec(
        select(AuditHead)
        .where(AuditHead.id == HEAD_ROW)
        .with_for_update()
        # What this session has read before may be behind what it waited for.
        .execution_options(populate_existing=True)
    ).first()
