"""What waits for a reviewer: quarantined feedback, flagged text, answers worth a label.

A decision and what follows from it are one transaction. `feedback_at` of the interaction
moves to the moment of the decision, since curation reads on from there: what is released
gets learned, and what is held back is withdrawn.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, update
from sqlmodel import Session, col, select

from registry import acts, interactions
from registry.clock import NewId
from registry.deployment import Act
from registry.errors import ConflictError, NotFoundError
from registry.interactions import Feedback
from registry.models import ReviewItem, UserInteraction

QUARANTINE, INJECTION, MODERATION = "quarantine", "injection", "moderation"
INFORMATIVE = "informative"
"""Nothing is wrong with it: a label of it would teach the scorer much."""
KINDS = (QUARANTINE, INJECTION, MODERATION, INFORMATIVE)
HOLDING = (QUARANTINE, INJECTION, MODERATION)
"""Kinds that keep an interaction out of training until somebody accepts it."""
PENDING, ACCEPTED, REJECTED = "pending", "accepted", "rejected"
STATES = (PENDING, ACCEPTED, REJECTED)
IN_CLAUSE_ROWS = 500


def reason_of(kind: str, text: str) -> str:
    """What is stored as the reason of an item."""
    return f"{kind}: {text}"


def kind_of(reason: str) -> str:
    """The kind that a stored reason begins with."""
    return reason.partition(":")[0]


def add(
    session: Session,
    *,
    workload: str,
    kind: str,
    reasons: Mapping[str, str],
    now: datetime,
    new_id: NewId,
) -> int:
    """Put interactions (id → why) into the queue, each once for each kind; how many are new."""
    known: set[str] = set()
    for chunk in _chunks(reasons):
        known |= set(
            session.exec(
                select(ReviewItem.interaction_id).where(
                    col(ReviewItem.interaction_id).in_(chunk), _is_of(kind)
                )
            )
        )
    fresh = {key: why for key, why in reasons.items() if key not in known}
    session.add_all(
        ReviewItem(
            id=new_id(),
            workload=workload,
            interaction_id=interaction_id,
            reason=reason_of(kind, why),
            created_at=now,
        )
        for interaction_id, why in fresh.items()
    )
    if kind in HOLDING:
        _touch(session, fresh, now=now)
    session.flush()
    return len(fresh)


def replace_informative(
    session: Session, *, workload: str, reasons: Mapping[str, str], now: datetime, new_id: NewId
) -> int:
    """Put another choice of unrated answers in the place of those that nobody has judged yet."""
    session.connection().execute(
        delete(ReviewItem).where(
            col(ReviewItem.workload) == workload,
            col(ReviewItem.state) == PENDING,
            _is_of(INFORMATIVE),
        )
    )
    return add(
        session, workload=workload, kind=INFORMATIVE, reasons=reasons, now=now, new_id=new_id
    )


def queue(
    session: Session,
    *,
    workload: str,
    state: str = PENDING,
    kind: str | None = None,
    limit: int = 50,
    after: tuple[datetime, str] | None = None,
) -> Sequence[tuple[ReviewItem, UserInteraction]]:
    """Items with their interactions, oldest first; `after`: time and id of the last one seen."""
    created_at, item_id = col(ReviewItem.created_at), col(ReviewItem.id)
    query = (
        select(ReviewItem, UserInteraction)
        .join(UserInteraction, col(UserInteraction.id) == col(ReviewItem.interaction_id))
        .where(ReviewItem.workload == workload, ReviewItem.state == state)
        .order_by(created_at, item_id)
        .limit(limit)
    )
    if kind is not None:
        query = query.where(_is_of(kind))
    if after is not None:
        later = created_at > after[0]
        query = query.where(later | ((created_at == after[0]) & (item_id > after[1])))
    return session.exec(query).all()


def held_back(session: Session, *, workload: str) -> set[str]:
    """Interactions that must not be learned from: flagged, and not accepted by a reviewer."""
    kinds = _is_of(HOLDING[0])
    for kind in HOLDING[1:]:
        kinds = kinds | _is_of(kind)
    return set(
        session.exec(
            select(ReviewItem.interaction_id).where(
                ReviewItem.workload == workload, ReviewItem.state != ACCEPTED, kinds
            )
        )
    )


def decide(
    session: Session, act: Act, item_id: str, *, accepted: bool, label: Feedback | None = None
) -> ReviewItem:
    """Settle one item; `label` is what the reviewer says of the answer, kept as feedback.

    Raises `NotFoundError`, or `ConflictError` where somebody has decided already.
    """
    state = ACCEPTED if accepted else REJECTED
    settled = session.connection().execute(
        update(ReviewItem)
        .where(col(ReviewItem.id) == item_id, col(ReviewItem.state) == PENDING)
        .values(state=state, decided_at=act.now, decided_by=act.actor)
    )
    item = session.get(ReviewItem, item_id, populate_existing=True)
    if item is None:
        raise NotFoundError(f"no review item '{item_id}'")
    if settled.rowcount == 0:
        raise ConflictError(f"review item {item_id} was {item.state} already")
    if label is not None:
        interactions.add_feedback(
            session, label, now=act.now, new_id=act.new_id, keyring=act.keyring
        )
    elif kind_of(item.reason) in HOLDING:
        _touch(session, [item.interaction_id], now=act.now)
    told = {"state": state, "kind": kind_of(item.reason)}
    acts.record(session, act, action="review", subject=f"review:{item.id}", details=told)
    return item


def get(session: Session, item_id: str) -> ReviewItem:
    """One item. Raises `NotFoundError`."""
    item = session.get(ReviewItem, item_id)
    if item is None:
        raise NotFoundError(f"no review item '{item_id}'")
    return item


def _is_of(kind: str) -> ColumnElement[bool]:
    return col(ReviewItem.reason).startswith(f"{kind}:", autoescape=True)


def _touch(session: Session, interaction_ids: Iterable[str], *, now: datetime) -> None:
    """Have curation look at these again; those without feedback have nothing to look at."""
    for chunk in _chunks(interaction_ids):
        session.connection().execute(
            update(UserInteraction)
            .where(
                col(UserInteraction.id).in_(chunk), col(UserInteraction.feedback_at).is_not(None)
            )
            .values(feedback_at=now)
        )


def _chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    found = list(ids)
    for start in range(0, len(found), IN_CLAUSE_ROWS):
        yield found[start : start + IN_CLAUSE_ROWS]
