"""What was taken back since a backup was made: API keys that were revoked, what people allow.

The database that a restore replaces tells of it; the backup knows its own time alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, inspect, select
from sqlmodel import Session, col

from registry import keys, privacy
from registry.crypto import Keyring
from registry.deployment import Act
from registry.errors import BackupError, KeyringError
from registry.models import ApiKey, User
from registry.privacy import Consent


@dataclass(frozen=True)
class Said:
    """What a user has allowed last, and when they said so."""

    user_id: str
    external_id_encrypted: str | None
    consent: Consent
    since: datetime


@dataclass(frozen=True)
class Withdrawals:
    """What a database knows that is about to be replaced."""

    revoked: Mapping[str, datetime]
    """When keys were revoked, by prefix."""
    said: Sequence[Said]


@dataclass(frozen=True)
class HeldAgain:
    """What of it the backup did not know."""

    num_keys: int
    num_people: int


def withdrawals_of(connection: Connection) -> Withdrawals:
    """What a database of whatever schema knows of revoked keys, and of what people allow."""
    return Withdrawals(_revoked(connection), _said(connection))


def hold_again(session: Session, act: Act, former: Withdrawals) -> HeldAgain:
    """Have it hold in a restored database; of what a user said, the later counts.

    Raises `BackupError` where somebody opted out whom the backup does not know, and whose id
    cannot be read.
    """
    num_keys = sum(_revoke(session, act, *revoked) for revoked in former.revoked.items())
    return HeldAgain(num_keys, sum(_hold(session, act, said) for said in former.said))


def _revoked(connection: Connection) -> dict[str, datetime]:
    if not _has(connection, "api_keys", "revoked_at"):
        return {}
    revoked_at = col(ApiKey.revoked_at)
    rows = connection.execute(select(col(ApiKey.prefix), revoked_at).where(revoked_at.is_not(None)))
    return {prefix: moment for prefix, moment in rows if moment is not None}


def _said(connection: Connection) -> list[Said]:
    if not _has(connection, "users", "consent_at"):
        return []
    rows = connection.execute(
        select(
            col(User.id),
            col(User.external_id_encrypted),
            col(User.consent),
            col(User.consent_at),
        ).where(col(User.consent_at).is_not(None))
    )
    return [
        Said(user_id, sealed, privacy.known(consent), since)
        for user_id, sealed, consent, since in rows
        if since is not None
    ]


def _has(connection: Connection, table: str, column: str) -> bool:
    found = inspect(connection)
    return found.has_table(table) and column in {
        known["name"] for known in found.get_columns(table)
    }


def _revoke(session: Session, act: Act, prefix: str, since: datetime) -> bool:
    key = keys.find(session, prefix)
    if key is None or key.revoked_at is not None:
        return False
    keys.revoke(session, act, prefix, since=since)
    return True


def _hold(session: Session, act: Act, said: Said) -> bool:
    """Whether the user allows something else now."""
    user = session.get(User, said.user_id)
    if user is None:
        if said.consent == "granted":
            return False
        user = _stranger(said, act)
    if user.consent_at is not None and user.consent_at >= said.since:
        return False
    if user.consent == said.consent:
        user.consent_at = said.since  # so that an older word does not count in a later restore
        session.add(user)
        return False
    privacy.keep_consent(session, act, user, said.consent, since=said.since)
    return True


def _stranger(said: Said, act: Act) -> User:
    """Somebody who came after the backup, known from now on for having opted out."""
    sealed = said.external_id_encrypted
    if sealed is not None:
        sealed = _sealed_anew(said.user_id, sealed, act.keyring)
    return User(id=said.user_id, external_id_encrypted=sealed, created_at=act.now)


def _sealed_anew(user_id: str, sealed: str, keyring: Keyring) -> str:
    place = f"users.external_id:{user_id}"
    try:
        return keyring.encrypt(keyring.decrypt(sealed, context=place), context=place)
    except KeyringError as error:
        raise BackupError(
            f"user {user_id} of the database that is to be replaced has opted out, and their id "
            f"cannot be read ({error}): put that key back, or move the database away"
        ) from error
