"""Log interactions, take feedback, and tell their history."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    Insert,
    String,
    insert,
    literal,
    update,
)
from sqlmodel import Session, col, select

from registry import privacy, texts
from registry.clock import NewId
from registry.crypto import Keyring
from registry.errors import NotFoundError
from registry.inserting import insert_ignoring_duplicates, own_insert
from registry.models import (
    DEFAULT_WORKLOAD,
    ClientMetadata,
    FeedbackEvent,
    User,
    UserInteraction,
)
from registry.shown_feedback import SHOW, rated_kind

Source = Literal["served", "logged", "imported"]
"""Answered here; answered elsewhere and logged over HTTP; or read from a file."""


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """One request with its answer, as the serving side hands it over for logging."""

    id: str
    created_at: datetime
    input_text: str
    structured_prompt: str
    model_output: str
    workload: str = DEFAULT_WORKLOAD
    external_user_id: str | None = None
    session_id: str | None = None
    messages: list[dict[str, Any]] | None = None
    tokens_input: int | None = None
    tokens_output: int | None = None
    processing_time_ms: float | None = None
    queue_ms: float | None = None
    model_version: str | None = None
    external_model: str | None = None
    """Name of a model that is no version here."""
    source: Source = "served"
    role: str = "default"
    experiment_id: str | None = None
    target_tool: str | None = None
    language: str | None = None
    quality_score: float | None = None
    scorer_version: str | None = None
    error: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    asked_at: datetime | None = None
    """When the request came in; unset: `created_at`. What a user asked before they were erased
    is not kept."""


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What a person says of an answer; a score implies its thumb."""

    interaction_id: str
    score: int | None = None
    thumb: int | None = None
    text: str | None = None
    corrected_output: str | None = None
    owner: str | None = None
    """Pseudonym of the user whose answer it must be; None: anybody's."""
    rater_id: str | None = None
    """Pseudonym of whoever says it; None: whoever asked."""
    is_review: bool = False
    """Whether a reviewer says it."""
    id: str | None = None
    """The event's id: the same one again changes nothing. Unset, it gets one when it is kept."""
    given_at: datetime | None = None
    """Unset: the moment it is kept."""


@dataclass(frozen=True)
class Rated:
    """Which version feedback was about. No version: the base model."""

    workload: str
    version: str | None
    thumb: int | None


def thumb_of(score: int) -> int:
    """The seeds' projection of a 1-5 score: 4 and up is 1, 3 is 0, less is -1."""
    if score >= 4:
        return 1
    return 0 if score == 3 else -1


def log(
    session: Session,
    interactions: Sequence[Interaction],
    *,
    keyring: Keyring,
    again: bool = False,
) -> int:
    """Insert a batch of interactions with their users and client metadata; how many were kept.

    `again`: some may be there already, by their ids; those stay as they are. What an erased
    user asked before is left out, and the texts of users who want none kept.
    """
    if not interactions:
        return 0
    pseudonyms = {
        item.external_user_id: keyring.pseudonym(item.external_user_id)
        for item in interactions
        if item.external_user_id is not None
    }
    if pseudonyms:
        user_ids = list(pseudonyms.values())
        allowed = privacy.consents(session, user_ids)
        gone = privacy.erased(session, user_ids, keyring)
        interactions = privacy.admissible(interactions, pseudonyms, gone=gone, allowed=allowed)
        if not interactions:
            return 0
        named = {item.external_user_id for item in interactions}
        pseudonyms = {name: value for name, value in pseudonyms.items() if name in named}
        new = {name: value for name, value in pseudonyms.items() if value not in allowed}
        _add_users(session, new, keyring, interactions[0].created_at)
    privacy.hold(session, interactions, pseudonyms, keyring)
    rows = [
        texts.seal_row("user_interactions", _row(item, pseudonyms), keyring)
        for item in interactions
    ]
    _insert_all(session, UserInteraction, rows, key="id", again=again)
    clients = [
        _client_row(item, keyring)
        for item in interactions
        if item.ip_address is not None or item.user_agent is not None
    ]
    if clients:
        _insert_all(session, ClientMetadata, clients, key="interaction_id", again=again)
    return len(rows)


def add_feedback(
    session: Session,
    feedback: Feedback,
    *,
    now: datetime,
    new_id: NewId,
    keyring: Keyring | None = None,
) -> Rated | None:
    """Keep the event, and show what it says on the interaction; what it was about.

    Fields that the feedback leaves out keep what was said before; what arrives late does not
    replace what was said after it. `feedback_at` is always `now`, since curation reads on from
    there. An event that is there already changes nothing, and None is returned.
    Raises `NotFoundError` where there is no such interaction, or it is not the owner's.
    """
    event = _event(feedback, now=now, new_id=new_id)
    privacy.strip_feedback(session, event, keyring)
    values = {
        "about": event.interaction_id,
        "event": event.id,
        "given_at": event.created_at,
        "owner": feedback.owner,
        "now": now,
        **{f"new_{name}": value for name, value in _said(event, keyring).items()},
    }
    found = session.connection().execute(SHOW, values)
    about = found.first()
    event = _sealed(event, keyring)
    if about is not None:
        session.add(event)
        return Rated(about[0], about[1], event.thumb)
    row = session.get(UserInteraction, event.interaction_id)
    if row is None or feedback.owner not in (None, row.user_id):
        raise NotFoundError(f"no interaction '{event.interaction_id}'")
    if session.get(FeedbackEvent, event.id) is not None:
        return None
    session.add(event)
    session.flush()
    _show_all(session, event.interaction_id, keyring, now=now)
    return Rated(row.workload, row.model_version, event.thumb)


def _event(feedback: Feedback, *, now: datetime, new_id: NewId) -> FeedbackEvent:
    thumb = feedback.thumb
    if thumb is None and feedback.score is not None:
        thumb = thumb_of(feedback.score)
    return FeedbackEvent(
        id=feedback.id or new_id(),
        interaction_id=feedback.interaction_id,
        score=feedback.score,
        thumb=thumb,
        text=feedback.text,
        corrected_output=feedback.corrected_output,
        rater_id=feedback.rater_id,
        is_review=feedback.is_review,
        created_at=feedback.given_at or now,
    )


def _sealed(event: FeedbackEvent, keyring: Keyring | None) -> FeedbackEvent:
    row = {name: getattr(event, name) for name in FeedbackEvent.model_fields}
    return FeedbackEvent(**texts.seal_row("feedback_events", row, keyring))


def _said(event: FeedbackEvent, keyring: Keyring | None) -> dict[str, Any]:
    """What an event says, by the interaction's columns; None where it says nothing."""
    values = {
        "id": event.interaction_id,
        "feedback_score": event.score,
        "user_feedback": event.thumb,
        "feedback_text": event.text,
        "corrected_output": event.corrected_output,
    }
    sealed = texts.seal_row("user_interactions", values, keyring)
    return {name: value for name, value in sealed.items() if name != "id"}


def _show_all(
    session: Session, interaction_id: str, keyring: Keyring | None, *, now: datetime
) -> None:
    """Show on the interaction what all its events say, the latest of each field."""
    events = session.exec(
        select(FeedbackEvent)
        .where(FeedbackEvent.interaction_id == interaction_id)
        .order_by(col(FeedbackEvent.created_at), col(FeedbackEvent.id))
    )
    changes: dict[str, Any] = {}
    for event in events:
        texts.reveal(event, keyring)
        said = _said(event, keyring)
        changes |= {name: value for name, value in said.items() if value is not None}
    corrected = literal(changes.get("corrected_output"), String)
    session.connection().execute(
        update(UserInteraction)
        .where(col(UserInteraction.id) == interaction_id)
        .values(**changes, rated_kind=rated_kind(corrected), feedback_at=now, updated_at=now)
    )


def history(
    session: Session,
    *,
    user_id: str,
    limit: int = 50,
    before: datetime | None = None,
    before_id: str | None = None,
    failed: bool = True,
    keyring: Keyring | None = None,
) -> Sequence[UserInteraction]:
    """The interactions of one user (by pseudonym), newest first, without shadow answers.

    The next page is what lies before the last row's `created_at` and id; without
    `before_id`, rows of the moment `before` itself are left out. `failed=False` leaves out
    requests that got no answer.
    """
    query = (
        select(UserInteraction)
        .where(UserInteraction.user_id == user_id, UserInteraction.role != "shadow")
        .order_by(col(UserInteraction.created_at).desc(), col(UserInteraction.id).desc())
        .limit(limit)
    )
    created_at, row_id = col(UserInteraction.created_at), col(UserInteraction.id)
    if before is not None:
        earlier = created_at < before
        if before_id is not None:
            earlier = earlier | ((created_at == before) & (row_id < before_id))
        query = query.where(earlier)
    if not failed:
        query = query.where(col(UserInteraction.error).is_(None))
    found = session.exec(query).all()
    for row in found:
        texts.reveal(row, keyring)
    return found


def _add_users(
    session: Session, pseudonyms: dict[str, str], keyring: Keyring, now: datetime
) -> None:
    rows = [
        {
            "id": pseudonym,
            "external_id_encrypted": keyring.encrypt(
                external_id, context=f"users.external_id:{pseudonym}"
            ),
            "created_at": now,
        }
        for external_id, pseudonym in pseudonyms.items()
    ]
    insert_ignoring_duplicates(session, User, rows)


def _insert_all(
    session: Session, table: type[Any], rows: Sequence[dict[str, Any]], *, key: str, again: bool
) -> None:
    if again:
        statement: Insert = own_insert(session, table).on_conflict_do_nothing(index_elements=[key])
    else:
        statement = insert(table)  # SQLAlchemy keeps this one compiled, and the other not
    session.connection().execute(statement, rows)


def _row(item: Interaction, pseudonyms: dict[str, str]) -> dict[str, Any]:
    counted = item.tokens_input is not None and item.tokens_output is not None
    return {
        "id": item.id,
        "workload": item.workload,
        "user_id": pseudonyms[item.external_user_id] if item.external_user_id is not None else None,
        "session_id": item.session_id,
        "input_text": item.input_text,
        "messages": item.messages,
        "structured_prompt": item.structured_prompt,
        "model_output": item.model_output,
        "tokens_input": item.tokens_input,
        "tokens_output": item.tokens_output,
        "tokens_total": (item.tokens_input or 0) + (item.tokens_output or 0) if counted else None,
        "processing_time_ms": item.processing_time_ms,
        "queue_ms": item.queue_ms,
        "model_version": item.model_version,
        "external_model": item.external_model,
        "source": item.source,
        "role": item.role,
        "experiment_id": item.experiment_id,
        "target_tool": item.target_tool,
        "language": item.language,
        "quality_score": item.quality_score,
        "scorer_version": item.scorer_version,
        "error": item.error,
        "created_at": item.created_at,
        "updated_at": item.created_at,
    }


def _client_row(item: Interaction, keyring: Keyring) -> dict[str, Any]:
    def sealed(name: str, value: str | None) -> str | None:
        if value is None:
            return None
        return keyring.encrypt(value, context=f"client_metadata.{name}:{item.id}")

    return {
        "interaction_id": item.id,
        "ip_address_encrypted": sealed("ip_address", item.ip_address),
        "user_agent_encrypted": sealed("user_agent", item.user_agent),
        "created_at": item.created_at,
    }
