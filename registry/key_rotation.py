"""Which keys the database needs, and how its values get from old keys to the current one.

Only the keys of fields rotate. The master key stays: with another one every user would be
somebody else, every API key void and the audit log unreadable.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Text, cast, func, select, update
from sqlmodel import Session, SQLModel, col

from registry import acts, texts
from registry.audit_head import seal_first
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import AUDIT_PURPOSE, Act
from registry.errors import KeyringError
from registry.inserting import insert_ignoring_duplicates
from registry.models import EncryptionKey

BATCH_ROWS = 500
RETIRE_AFTER = timedelta(minutes=10)
"""A value may still come from a transaction that began with the old key."""


@dataclass(frozen=True)
class Field:
    """A column whose values are encrypted: always, or where `is_text` perhaps."""

    table: str
    column: str
    label: str
    """How the column is called in the associated data."""
    key: str = "id"
    is_text: bool = False

    @property
    def value(self) -> Column[Any]:
        """The column itself."""
        return SQLModel.metadata.tables[self.table].c[self.column]

    @property
    def row_id(self) -> Column[Any]:
        """The primary key beside it."""
        return SQLModel.metadata.tables[self.table].c[self.key]

    @property
    def shown(self) -> ColumnElement[str]:
        """The value as text that LIKE can look at."""
        return cast(self.value, Text) if self.is_json else self.value

    @property
    def is_json(self) -> bool:
        """Whether a JSON string holds the sealed value."""
        return self.is_text and self.column == texts.JSON_COLUMN

    def start(self, key_id: str = "") -> str:
        """How a value begins that was sealed with this key."""
        dotted = f"{key_id}." if key_id else ""
        mark = texts.MARK if self.is_text else ""
        return f'"{mark}{dotted}' if self.is_json else f"{mark}{dotted}"

    def place(self, row_id: str) -> str:
        """The associated data of one value."""
        return f"{self.table}.{self.label}:{row_id}"


FIELDS = (
    Field("actors", "name_encrypted", "name"),
    Field("users", "external_id_encrypted", "external_id"),
    Field("client_metadata", "ip_address_encrypted", "ip_address", "interaction_id"),
    Field("client_metadata", "user_agent_encrypted", "user_agent", "interaction_id"),
    Field("api_keys", "subject_encrypted", "subject", "prefix"),
    Field("erasures", "external_id_encrypted", "external_id"),
    *(
        Field(table, column, column, is_text=True)
        for table, columns in texts.COLUMNS.items()
        for column in columns
    ),
)


@dataclass(frozen=True)
class Rotation:
    """What a rotation did."""

    key_id: str
    is_new: bool
    """False where an earlier rotation was finished."""
    num_values: int


def check_keys(database: Database, keyring: Keyring, *, now: datetime) -> None:
    """Raise `KeyringError` unless the keys are those that the database was written with.

    A database that knows none yet remembers these, and its audit log begins, sealed; what it
    holds already must fit them.
    """
    with database.read() as session:
        rows = session.connection().execute(
            select(col(EncryptionKey.kind), col(EncryptionKey.id)).where(
                col(EncryptionKey.retired_at).is_(None)
            )
        )
        needed = {(str(kind), str(key_id)) for kind, key_id in rows}
        if not needed:
            _check_a_value(session, keyring)
    here = {("master", keyring.key_id), *(("fields", key_id) for key_id in keyring.fields.ids)}
    if missing := sorted(needed - here, reverse=True):  # the master key is told first
        kind, key_id = missing[0]
        raise KeyringError(_told(kind, key_id, keyring))
    if here - needed:
        with database.write() as session:
            if not needed:
                seal_first(session, keyring.derive(AUDIT_PURPOSE))
            insert_ignoring_duplicates(
                session,
                EncryptionKey,
                [
                    {"kind": kind, "id": key_id, "created_at": now}
                    for kind, key_id in sorted(here - needed)
                ],
            )


def uses(session: Session, key_id: str) -> int:
    """How many values in the database are sealed with a key."""
    return sum(
        session.connection()
        .execute(select(func.count()).where(field.shown.like(f"{field.start(key_id)}%")))
        .scalar_one()
        for field in FIELDS
    )


def rotate(database: Database, act: Act, *, batch_rows: int = BATCH_ROWS) -> Rotation:
    """Make a new key, and encrypt everything again with it.

    Killed at any point, it goes on where it was: while values are left under an older key, no
    further key is made.
    """
    keyring = act.keyring
    with database.read() as session:
        unfinished = any(uses(session, key_id) for key_id in keyring.fields.ids[:-1])
    is_new = not unfinished
    if is_new:
        _make_key(database, act)
    key_id = keyring.fields.current.id
    check_keys(database, keyring, now=act.now)
    num_values = reseal(database, keyring, batch_rows=batch_rows)
    with database.write() as session:
        told = {"new": is_new, "values": num_values}
        acts.record(session, act, action="rotate_keys", subject=f"key:{key_id}", details=told)
    return Rotation(key_id, is_new, num_values)


def _make_key(database: Database, act: Act) -> None:
    fields = act.keyring.fields
    with database.write() as session:
        # First, since a key cannot be taken back: others may have sealed with it by then.
        acts.record(session, act, action="make_key", subject="keys:fields")
        fields.add()
        session.add(EncryptionKey(kind="fields", id=fields.current.id, created_at=act.now))


def reseal(database: Database, keyring: Keyring, *, batch_rows: int = BATCH_ROWS) -> int:
    """Bring every value under the current key, texts as the setting has them; how many changed."""
    return sum(_reseal_field(database, keyring, field, batch_rows) for field in FIELDS)


def retire(
    database: Database, act: Act, *, in_files: frozenset[str] = frozenset()
) -> Sequence[str]:
    """Delete older keys that nothing uses any more; which they were.

    `in_files`: keys that files outside the database still need. The key that comes from the
    master key has no file; it only stops being listed.
    """
    keyring = act.keyring
    retired, left = [], []
    *older, current = keyring.fields.ids
    with database.write() as session:
        newest = session.get(EncryptionKey, ("fields", current))
        if newest is None or act.now - newest.created_at < RETIRE_AFTER:
            return []
        for key_id in older:
            row = session.get(EncryptionKey, ("fields", key_id))
            if row is None or key_id in in_files:
                continue
            if row.retired_at is not None and key_id == keyring.key_id:
                continue  # it has no file
            if uses(session, key_id) > 0:
                continue  # by who had no newer one, even after it was retired
            if row.retired_at is not None:
                left.append(key_id)  # by who was killed before its file was deleted
                continue
            row.retired_at = act.now
            session.add(row)
            retired.append(key_id)
            acts.record(session, act, action="retire_key", subject=f"key:{key_id}")
    for key_id in (*left, *retired):
        keyring.fields.remove(key_id)
    return retired


def _reseal_field(database: Database, keyring: Keyring, field: Field, batch_rows: int) -> int:
    changed, last = 0, ""
    while True:
        with database.write() as session:
            rows = session.connection().execute(
                select(field.row_id, field.value)
                .where(field.row_id > last, *_stale(field, keyring))
                .order_by(field.row_id)
                .limit(batch_rows)
            )
            found = rows.all()
            for row_id, value in found:
                changed += _reseal_value(session, keyring, field, row_id, value)
        if len(found) < batch_rows:
            return changed
        last = found[-1][0]


def _stale(field: Field, keyring: Keyring) -> list[ColumnElement[bool]]:
    """What is not as it would be written now."""
    stale: list[ColumnElement[bool]] = [
        field.value.is_not(None),
        field.shown.not_like(f"{field.start(keyring.fields.current.id)}%"),
    ]
    if field.is_text:
        every = keyring.seals_texts
        stale.append(field.shown != "" if every else field.shown.like(f"{field.start()}%"))
    return stale


def _reseal_value(session: Session, keyring: Keyring, field: Field, row_id: str, value: Any) -> int:
    place = field.place(row_id)
    if field.is_text:
        plain = texts.unseal(value, place=place, keyring=keyring)
        new = texts.MARK + keyring.encrypt(
            json.dumps(plain, ensure_ascii=False) if field.is_json else plain, context=place
        )
    else:
        new = keyring.encrypt(keyring.decrypt(value, context=place), context=place)
    change = update(field.value.table).where(field.row_id == row_id)
    if not field.is_json:  # conversations never change
        change = change.where(field.value == value)
    return session.connection().execute(change.values({field.column: new})).rowcount


def _check_a_value(session: Session, keyring: Keyring) -> None:
    for field in FIELDS:
        if field.is_text:
            continue  # they may lie open
        any_value = select(field.value).where(field.value.is_not(None)).limit(1)
        value = session.connection().execute(any_value).scalar()
        key_id = str(value).partition(".")[0]
        if value is not None and keyring.fields.get(key_id) is None:
            raise KeyringError(_told("master", key_id, keyring))


def _told(kind: str, key_id: str, keyring: Keyring) -> str:
    if kind == "master":
        return (
            f"the database was written with master key {key_id}, but secret.key in the home folder "
            f"is {keyring.key_id}: put the right secret.key back (a backup of it), or check "
            "KALIMTAK_HOME"
        )
    return (
        f"key {key_id} is missing: the database holds values that need it. Put its file back into "
        "keys/ in the home folder (a backup of it)"
    )
