"""Who acts over the API: by name in `actors` alone, everywhere else by a keyed hash.

So an erasure takes the name of a reviewer or an admin too, and what they did stays, as done by
somebody whom nobody can name any more. The hash is not the user's pseudonym: it would tell what
they had asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Session, SQLModel, col

from registry.crypto import Keyring
from registry.inserting import insert_ignoring_duplicates
from registry.models import Actor

PURPOSE = "actor"
OVER_API = "api:"
_PERSON = re.compile(rf"{OVER_API}([0-9a-f]{{32}})")
SHOWN_DIGITS = 8


def remember(session: Session, person: str, keyring: Keyring, now: datetime) -> None:
    """Know who acts by name from now on, so that people can read the record."""
    row_id = _id(person, keyring)
    if session.get(Actor, row_id) is None:
        name = keyring.encrypt(person, context=_place(row_id))
        row = {"id": row_id, "name_encrypted": name, "created_at": now}
        insert_ignoring_duplicates(session, Actor, [row])


def forget(session: Session, person: str, keyring: Keyring) -> int:
    """Keep the name no longer; 1 where one was kept."""
    gone = delete(Actor).where(col(Actor.id) == _id(person, keyring))
    return int(session.connection().execute(gone).rowcount)


def actor(external_id: str, keyring: Keyring) -> str:
    """How somebody who acts over the API is written down."""
    return f"{OVER_API}{_id(external_id, keyring)}"


def reveal(
    session: Session, rows: Iterable[SQLModel], keyring: Keyring, *, column: str = "actor"
) -> None:
    """Put names where the rows have hashes, for people to read; nothing is stored.

    Of whom no name is kept (any more), the beginning of the hash is left.
    """
    told: dict[str, str] = {}
    for row in rows:
        value = getattr(row, column)
        found = None if value is None else _PERSON.fullmatch(value)
        if found is not None:
            if value not in told:
                told[value] = OVER_API + _name(session, found[1], keyring)
            set_committed_value(row, column, told[value])


def written_as(actor_shown: str, keyring: Keyring) -> list[str]:
    """Everything that may be written down for an actor as people are shown them."""
    if not actor_shown.startswith(OVER_API):
        return [actor_shown]
    return [actor_shown, actor(actor_shown.removeprefix(OVER_API), keyring)]


def _id(person: str, keyring: Keyring) -> str:
    return keyring.digest(PURPOSE, person)[:32]


def _name(session: Session, row_id: str, keyring: Keyring) -> str:
    row = session.get(Actor, row_id)
    if row is None:
        return f"{row_id[:SHOWN_DIGITS]}…"
    return keyring.decrypt(row.name_encrypted, context=_place(row_id))


def _place(row_id: str) -> str:
    return f"actors.name:{row_id}"
