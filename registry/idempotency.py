"""Requests that may be repeated: the first does the work, the others get its answer.

Each function is one step inside the caller's transaction.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session, col, delete, update

from registry.errors import ConflictError
from registry.inserting import insert_ignoring_duplicates
from registry.models import IdempotencyKey

KEPT_FOR = timedelta(hours=24)


class InFlightError(ConflictError):
    """A request with this key is being answered."""


@dataclass(frozen=True)
class Stored:
    """An answer that is sent again."""

    status: int
    media_type: str
    body: str


def claim(
    session: Session,
    *,
    key_id: str,
    body_digest: str,
    token: str,
    lease: timedelta,
    now: datetime,
    user_id: str | None = None,
) -> Stored | None:
    """Take the key, or find what its first request was answered. `user_id`: by pseudonym.

    A claim that is neither kept nor freed within `lease` is taken for dead. Raises
    `ConflictError` where the key came with another body, `InFlightError` where it is taken.
    """
    session.connection().execute(
        delete(IdempotencyKey).where(col(IdempotencyKey.expires_at) <= now)
    )
    row = {
        "id": key_id,
        "body_digest": body_digest,
        "claim": token,
        "user_id": user_id,
        "created_at": now,
        "expires_at": now + lease,
    }
    if insert_ignoring_duplicates(session, IdempotencyKey, [row]):
        return None
    found = session.get(IdempotencyKey, key_id)
    if found is not None and found.body_digest != body_digest:
        raise ConflictError("this Idempotency-Key came with another body before")
    # On PostgreSQL it may have been given up this very moment.
    if found is None or found.status is None or found.media_type is None or found.body is None:
        raise InFlightError("a request with this Idempotency-Key is being answered")
    return Stored(found.status, found.media_type, found.body)


def keep(session: Session, *, key_id: str, token: str, answer: Stored, now: datetime) -> None:
    """Keep the answer of whoever holds the claim."""
    session.connection().execute(
        update(IdempotencyKey)
        .where(col(IdempotencyKey.id) == key_id, col(IdempotencyKey.claim) == token)
        .values(
            status=answer.status,
            media_type=answer.media_type,
            body=answer.body,
            expires_at=now + KEPT_FOR,
        )
    )


def free(session: Session, *, key_id: str, token: str) -> None:
    """Give the claim up: the request failed, and may be tried again."""
    session.connection().execute(
        delete(IdempotencyKey).where(
            col(IdempotencyKey.id) == key_id, col(IdempotencyKey.claim) == token
        )
    )
