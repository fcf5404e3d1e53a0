"""What people have allowed, and who must not come back: asked whenever something is written.

Each function is one step inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal, get_args

from sqlalchemy import ColumnElement, bindparam, func, update
from sqlmodel import Session, col, or_, select

from registry import acts
from registry.crypto import Keyring
from registry.deployment import Act
from registry.errors import ConflictError
from registry.inserting import insert_ignoring_duplicates
from registry.models import Erasure, FeedbackEvent, TrainingData, User, UserInteraction

if TYPE_CHECKING:
    from registry.interactions import Interaction

Consent = Literal["granted", "no_training", "no_content"]
CONSENTS: tuple[Consent, ...] = get_args(Consent)
ERASURE_PURPOSE = "erasure"
OPTED_OUT = "opted out"


class ErasedMeanwhileError(ConflictError):
    """A user was erased while their rows were being written."""


def subject_of(user_id: str, keyring: Keyring) -> str:
    """How an erasure and the audit log name a user: a keyed hash of the pseudonym."""
    return keyring.digest(ERASURE_PURPOSE, user_id)[:32]


def known(consent: str) -> Consent:
    """A consent as it stands in the database."""
    return next(name for name in CONSENTS if name == consent)


def consent_of(session: Session, user_id: str) -> Consent:
    """What a user (by pseudonym) has allowed; everything, unless they said otherwise."""
    user = session.get(User, user_id)
    return "granted" if user is None else known(user.consent)


def set_consent(session: Session, act: Act, external_id: str, consent: Consent) -> None:
    """Keep what a user allows from now on; what is there already is not learned from any more.

    Where they allow it again, curation reads anew what was withdrawn or rated meanwhile, and
    decides what is learned from. A user who is not known yet is one afterwards.
    """
    user = _known_user(session, act, external_id)
    keep_consent(session, act, user, consent, since=act.now)


def keep_consent(
    session: Session, act: Act, user: User, consent: Consent, *, since: datetime
) -> None:
    """The same for a user's row, which may be new; they said so at `since`."""
    is_back, refused_at = consent == "granted" != user.consent, user.consent_at
    user.consent, user.consent_at = consent, since
    session.add(user)
    session.flush()
    if is_back:
        _have_read_again(session, user.id, since=refused_at, now=act.now)
    elif consent != "granted":
        _unselect_samples(session, user.id)
    subject = subject_of(user.id, act.keyring)
    acts.record(
        session, act, action="set_consent", subject=f"user:{subject}", details={"consent": consent}
    )


def tell_export(session: Session, act: Act, external_id: str) -> None:
    """Keep in the audit log that somebody has taken out what is known of a user."""
    subject = subject_of(act.keyring.pseudonym(external_id), act.keyring)
    acts.record(session, act, action="export_user", subject=f"user:{subject}")


def may_be_learned() -> ColumnElement[bool]:
    """The condition on `user_interactions` that nobody who opted out is among them."""
    refusing = select(User.id).where(User.consent != "granted")
    user_id = col(UserInteraction.user_id)
    return or_(user_id.is_(None), user_id.not_in(refusing))


# Built once: each batch of answers asks them, and building one costs more than asking it.
ERASED = (
    select(Erasure.subject, func.max(Erasure.requested_at))
    .where(col(Erasure.subject).in_(bindparam("subjects", expanding=True)))
    .group_by(Erasure.subject)
)
CONSENTED = select(User.id, User.consent).where(
    col(User.id).in_(bindparam("user_ids", expanding=True))
)


def erased(session: Session, user_ids: Sequence[str], keyring: Keyring) -> dict[str, datetime]:
    """Those of the users that were erased, and when they last asked for it."""
    subjects = {subject_of(user_id, keyring): user_id for user_id in user_ids}
    found = session.connection().execute(ERASED, {"subjects": list(subjects)})
    return {subjects[subject]: moment for subject, moment in found}


def consents(session: Session, user_ids: Sequence[str]) -> dict[str, str]:
    """What those of the users have allowed who are known."""
    found = session.connection().execute(CONSENTED, {"user_ids": list(user_ids)})
    return dict(found.tuples().all())


def admissible(
    items: Sequence[Interaction],
    pseudonyms: Mapping[str, str],
    *,
    gone: Mapping[str, datetime],
    allowed: Mapping[str, str],
) -> list[Interaction]:
    """What may be written: nothing that an erased user asked before, no text that was refused."""
    kept = []
    for item in items:
        user_id = pseudonyms.get(item.external_user_id or "", "")
        if user_id in gone and (item.asked_at or item.created_at) <= gone[user_id]:
            continue
        refuses = allowed.get(user_id) == "no_content"
        kept.append(_without_content(item) if refuses else item)
    return kept


def hold(
    session: Session, items: Sequence[Interaction], pseudonyms: Mapping[str, str], keyring: Keyring
) -> None:
    """Keep the users of `items` from being erased until the transaction ends.

    SQLite has one writer at a time anyway. Raises `ErasedMeanwhileError`.
    """
    if session.connection().dialect.name != "postgresql" or not pseudonyms:
        return
    user_ids = sorted(
        {pseudonyms[item.external_user_id] for item in items if item.external_user_id}
    )
    session.exec(
        select(User.id)
        .where(col(User.id).in_(user_ids))
        .order_by(User.id)
        .with_for_update(read=True, key_share=True)
    ).all()
    gone = erased(session, user_ids, keyring)
    for item in items:
        moment = gone.get(pseudonyms.get(item.external_user_id or "", ""))
        if moment is not None and (item.asked_at or item.created_at) <= moment:
            raise ErasedMeanwhileError("a user was erased while their answer was written down")


def strip_feedback(session: Session, event: FeedbackEvent, keyring: Keyring | None) -> None:
    """Take the words out of feedback on an answer whose user wants no content kept.

    And the name, where whoever gave it was erased since.
    """
    if event.rater_id is not None and keyring is not None:
        moment = erased(session, [event.rater_id], keyring).get(event.rater_id)
        if moment is not None and event.created_at <= moment:
            event.rater_id = None
    if event.text is None and event.corrected_output is None:
        return
    consent = session.exec(
        select(User.consent)
        .join(UserInteraction, col(UserInteraction.user_id) == col(User.id))
        .where(UserInteraction.id == event.interaction_id)
    ).first()
    if consent == "no_content":
        event.text = event.corrected_output = None


def _without_content(item: Interaction) -> Interaction:
    return replace(
        item,
        input_text="",
        messages=None,
        structured_prompt="",
        model_output="",
        ip_address=None,
        user_agent=None,
    )


def _unselect_samples(session: Session, user_id: str) -> None:
    own = select(UserInteraction.id).where(UserInteraction.user_id == user_id)
    session.connection().execute(
        update(TrainingData)
        .where(
            col(TrainingData.source_interaction_id).in_(own),
            col(TrainingData.is_selected).is_(True),
        )
        .values(is_selected=False, rejection_reason=OPTED_OUT)
    )


def _have_read_again(
    session: Session, user_id: str, *, since: datetime | None, now: datetime
) -> None:
    """What was withdrawn for the refusal, and what was rated `since`; the rest stays as read."""
    withdrawn = select(TrainingData.source_interaction_id).where(
        TrainingData.rejection_reason == OPTED_OUT
    )
    is_withdrawn = col(UserInteraction.id).in_(withdrawn)
    rated_at = col(UserInteraction.feedback_at)
    session.connection().execute(
        update(UserInteraction)
        .where(
            col(UserInteraction.user_id) == user_id,
            rated_at.is_not(None),
            is_withdrawn if since is None else or_(is_withdrawn, rated_at >= since),
        )
        .values(feedback_at=now)
    )


def _known_user(session: Session, act: Act, external_id: str) -> User:
    """The user, held until the transaction ends; their first request may come at this moment."""
    user_id = act.keyring.pseudonym(external_id)
    sealed = act.keyring.encrypt(external_id, context=f"users.external_id:{user_id}")
    row = {"id": user_id, "external_id_encrypted": sealed, "created_at": act.now}
    insert_ignoring_duplicates(session, User, [row])
    return session.exec(
        select(User)
        .where(User.id == user_id)
        .with_for_update(key_share=True)  # rows that only name the user are not held up
        .execution_options(populate_existing=True)
    ).one()
