"""Everything that is known of a user, as one JSON document, written while it is read."""

import json
from collections.abc import Iterator
from typing import Any

from sqlmodel import Session, SQLModel, col, select

from registry import keys, lineage, texts
from registry.crypto import Keyring
from registry.db import Database
from registry.models import (
    ApiKey,
    ClientMetadata,
    DatasetItem,
    FeedbackEvent,
    IdempotencyKey,
    TrainingData,
    User,
    UserInteraction,
)

BATCH_ROWS = 200
INTERNAL = {"external_id_encrypted", "hash", "subject_encrypted", "claim", "body_digest"}


def export_user(database: Database, keyring: Keyring, external_id: str) -> Iterator[str]:
    """The document, piece by piece. Of an unknown user it holds nothing but the id.

    A page at a time is read, and nothing is held while the caller, who may be slow, takes it.
    """
    user_id = keyring.pseudonym(external_id)
    with database.read() as session:
        head = _head(session, keyring, external_id, user_id)
    yield _encode(head).removesuffix("}") + ', "interactions": ['
    separator = "\n"
    for page in _pages(database, keyring, user_id):
        for item in page:
            yield separator + _encode(item)
            separator = ",\n"
    yield "\n]}\n"


def _head(session: Session, keyring: Keyring, external_id: str, user_id: str) -> dict[str, Any]:
    user = session.get(User, user_id)
    return {
        "format": "kalimtak-user-1",
        "user_id": external_id,
        "pseudonym": user_id,
        "known_since": None if user is None else user.created_at,
        "consent": "granted" if user is None else user.consent,
        "consent_at": None if user is None else user.consent_at,
        "api_keys": _api_keys(session, keyring, external_id),
        "repeatable_answers": _repeatable(session, keyring, user_id),
    }


def _pages(database: Database, keyring: Keyring, user_id: str) -> Iterator[list[dict[str, Any]]]:
    """Interactions, oldest first, each with what hangs on it, shadow answers included."""
    created_at, row_id = col(UserInteraction.created_at), col(UserInteraction.id)
    query = select(UserInteraction).where(UserInteraction.user_id == user_id)
    query = query.order_by(created_at, row_id).limit(BATCH_ROWS)
    page = query
    while True:
        with database.read() as session:
            rows = session.exec(page).all()
            items = [_shown(row, keyring) for row in rows]
            items = list(_with_belongings(session, keyring, items))
        if not rows:
            return
        yield items
        at, last = rows[-1].created_at, rows[-1].id
        page = query.where((created_at > at) | ((created_at == at) & (row_id > last)))


def _with_belongings(
    session: Session, keyring: Keyring, items: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    ids = [item["id"] for item in items]
    said: dict[str, list[Any]] = {}
    for event in session.exec(
        select(FeedbackEvent)
        .where(col(FeedbackEvent.interaction_id).in_(ids))
        .order_by(col(FeedbackEvent.created_at))
    ):
        said.setdefault(event.interaction_id, []).append(_shown(event, keyring))
    clients = {
        row.interaction_id: _client(row, keyring)
        for row in session.exec(
            select(ClientMetadata).where(col(ClientMetadata.interaction_id).in_(ids))
        )
    }
    samples: dict[str, list[Any]] = {}
    for sample in session.exec(
        select(TrainingData).where(col(TrainingData.source_interaction_id).in_(ids))
    ):
        shown = _shown(sample, keyring) | _used(session, sample)
        samples.setdefault(sample.source_interaction_id, []).append(shown)
    for item in items:
        yield {
            **item,
            "feedback": said.get(item["id"], []),
            "client": clients.get(item["id"]),
            "training_samples": samples.get(item["id"], []),
        }


def _used(session: Session, sample: TrainingData) -> dict[str, Any]:
    datasets = session.exec(
        select(DatasetItem.dataset_id).where(DatasetItem.training_data_id == sample.id)
    ).all()
    versions = lineage.versions_of(session, sample.source_interaction_id) if datasets else []
    return {"datasets": list(datasets), "versions": list(versions)}


def _client(row: ClientMetadata, keyring: Keyring) -> dict[str, Any]:
    def opened(name: str, value: str | None) -> str | None:
        if value is None:
            return None
        return keyring.decrypt(value, context=f"client_metadata.{name}:{row.interaction_id}")

    return {
        "ip_address": opened("ip_address", row.ip_address_encrypted),
        "user_agent": opened("user_agent", row.user_agent_encrypted),
    }


def _api_keys(session: Session, keyring: Keyring, external_id: str) -> list[dict[str, Any]]:
    found = session.exec(select(ApiKey).where(col(ApiKey.subject_encrypted).is_not(None)))
    return [_plain(row) for row in found if keys.subject_of(row, keyring) == external_id]


def _repeatable(session: Session, keyring: Keyring, user_id: str) -> list[dict[str, Any]]:
    found = session.exec(select(IdempotencyKey).where(IdempotencyKey.user_id == user_id))
    return [_shown(row, keyring) for row in found]


def _shown(row: SQLModel, keyring: Keyring) -> dict[str, Any]:
    return texts.unseal_row(str(row.__tablename__), _plain(row), keyring)


def _plain(row: SQLModel) -> dict[str, Any]:
    return {name: getattr(row, name) for name in type(row).model_fields if name not in INTERNAL}


def _encode(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, default=lambda found: found.isoformat())
