"""The door that people's texts go through on their way into the database and out of it.

With `privacy.encrypt_texts` they lie there as `enc1:<key id>.<AES-GCM>`, each bound to its
table, column and row; without it, as they are. What is read tells by itself which it is, so the
setting may change at any time; a plain text that begins like a sealed one is always sealed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import SQLModel

from registry.crypto import Keyring
from registry.errors import KeyringError

MARK = "enc1:"
COLUMNS: dict[str, tuple[str, ...]] = {
    "user_interactions": (
        "input_text",
        "messages",
        "structured_prompt",
        "model_output",
        "feedback_text",
        "corrected_output",
    ),
    "feedback_events": ("text", "corrected_output"),
    "training_data": ("input_prompt", "target_output", "rejected_output", "messages"),
    "idempotency_keys": ("body",),
}
"""Every column with texts of people; `messages` hold JSON."""
JSON_COLUMN = "messages"


def seal(value: Any, *, place: str, keyring: Keyring | None) -> Any:
    """The value as it is stored at `place` ("table.column:row")."""
    if not value or keyring is None:
        return value
    marked = isinstance(value, str) and value.startswith(MARK)
    if not keyring.seals_texts and not marked:
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return MARK + keyring.encrypt(text, context=place)


def unseal(value: Any, *, place: str, keyring: Keyring | None) -> Any:
    """The value as it was before `seal`. Raises `KeyringError`, and gives no garbage."""
    if not isinstance(value, str) or not value.startswith(MARK):
        return value
    if keyring is None:
        raise KeyringError(f"{place} is encrypted, and read without a keyring")
    text = keyring.decrypt(value.removeprefix(MARK), context=place)
    column = place.partition(":")[0].rpartition(".")[2]
    return json.loads(text) if column == JSON_COLUMN else text


def seal_row(table: str, row: Mapping[str, Any], keyring: Keyring | None) -> dict[str, Any]:
    """A row (with its `id`) as it is stored."""
    return _each(table, row, lambda value, place: seal(value, place=place, keyring=keyring))


def seal_column(
    table: str, column: str, ids: Sequence[str], values: Sequence[Any], keyring: Keyring | None
) -> list[Any]:
    """A column of rows with these ids as it is stored."""
    return [
        seal(value, place=f"{table}.{column}:{row_id}", keyring=keyring)
        for row_id, value in zip(ids, values, strict=True)
    ]


def unseal_row(table: str, row: Mapping[str, Any], keyring: Keyring | None) -> dict[str, Any]:
    """A stored row (with its `id`) as people wrote it. Raises `KeyringError`."""
    return _each(table, row, lambda value, place: unseal(value, place=place, keyring=keyring))


def reveal(entity: SQLModel, keyring: Keyring | None) -> None:
    """Show the texts of an object that was just read; it does not count as changed by that."""
    table = str(entity.__tablename__)
    row = {name: getattr(entity, name) for name in ("id", *COLUMNS[table])}
    for name, value in unseal_row(table, row, keyring).items():
        if value is not row[name]:
            set_committed_value(entity, name, value)


def _each(table: str, row: Mapping[str, Any], change: Any) -> dict[str, Any]:
    changed = {
        name: change(row[name], f"{table}.{name}:{row['id']}")
        for name in COLUMNS[table]
        if row.get(name) is not None
    }
    return {**row, **changed}
