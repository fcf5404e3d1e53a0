"""API keys: made, found, revoked. The key itself is shown once and kept nowhere."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlmodel import Session, col, select

from registry import acts
from registry.crypto import Keyring
from registry.deployment import Act
from registry.errors import ConflictError, NotFoundError
from registry.models import ApiKey

Role = Literal["user", "reviewer", "admin"]

MARK = "klm"
PREFIX_BYTES = 6
SECRET_BYTES = 24
"""192 bits of chance."""


@dataclass(frozen=True)
class NewKey:
    """A key just made; `text` is what the caller sends, and is not kept."""

    prefix: str
    text: str


def create(
    session: Session,
    act: Act,
    *,
    name: str,
    role: Role,
    subject: str | None = None,
    lifetime: timedelta | None = None,
) -> NewKey:
    """Make a key; without a `lifetime` it ends when it is revoked."""
    prefix = secrets.token_hex(PREFIX_BYTES)
    text = f"{MARK}_{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    session.add(
        ApiKey(
            prefix=prefix,
            hash=digest(text, act.keyring),
            name=name,
            role=role,
            subject_encrypted=None
            if subject is None
            else act.keyring.encrypt(subject, context=_context(prefix)),
            created_at=act.now,
            expires_at=None if lifetime is None else act.now + lifetime,
        )
    )
    _audit(session, act, "create_key", prefix, role=role)
    session.flush()
    return NewKey(prefix, text)


def prefix_of(text: str) -> str | None:
    """The prefix of what looks like a key of ours."""
    mark, _, rest = text.partition("_")
    prefix, _, secret = rest.partition("_")
    return prefix if mark == MARK and prefix and secret else None


def digest(text: str, keyring: Keyring) -> str:
    """What is stored of a key (HMAC-SHA256): useless to whoever reads the database alone."""
    key = keyring.derive("api-keys")
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def subject_of(key: ApiKey, keyring: Keyring) -> str | None:
    """The one user a key speaks for; None: all. Raises `KeyringError`."""
    if key.subject_encrypted is None:
        return None
    return keyring.decrypt(key.subject_encrypted, context=_context(key.prefix))


def find(session: Session, prefix: str) -> ApiKey | None:
    """The key with this prefix, valid or not."""
    return session.get(ApiKey, prefix)


def is_valid(key: ApiKey, text: str, *, keyring: Keyring, now: datetime) -> bool:
    """Whether `text` is this key, and it may still be used."""
    fits = hmac.compare_digest(key.hash, digest(text, keyring))
    return fits and key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def list_keys(session: Session) -> Sequence[ApiKey]:
    """All keys, newest first."""
    return session.exec(select(ApiKey).order_by(col(ApiKey.created_at).desc())).all()


def revoke(session: Session, act: Act, prefix: str, *, since: datetime | None = None) -> None:
    """End a key for good; `since`: when that was, unless now.

    Raises `NotFoundError`, or `ConflictError` where it has ended.
    """
    key = session.get(ApiKey, prefix)
    if key is None:
        raise NotFoundError(f"no API key with prefix '{prefix}' (kalimtak key list)")
    if key.revoked_at is not None:
        raise ConflictError(f"key {prefix} was revoked at {key.revoked_at:%Y-%m-%d %H:%M} UTC")
    key.revoked_at = act.now if since is None else since
    session.add(key)
    _audit(session, act, "revoke_key", prefix, role=key.role)


def touch(session: Session, prefix: str, *, now: datetime) -> None:
    """Remember that a key was used."""
    key = session.get(ApiKey, prefix)
    if key is not None:
        key.last_used_at = now
        session.add(key)


def _context(prefix: str) -> str:
    return f"api_keys.subject:{prefix}"


def _audit(session: Session, act: Act, action: str, prefix: str, *, role: str) -> None:
    acts.record(session, act, action=action, subject=f"key:{prefix}", details={"role": role})
