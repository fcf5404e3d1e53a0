"""Erases a user from the database: in batches, restartable, and for good.

    begin ─▶ delete_some (until nothing is left) ─▶ delete_user ─▶ … files … ─▶ report.complete

From `begin` on nothing that the user asked before is written any more (`privacy.admissible`).
Each function is one step inside the caller's transaction.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, SQLModel, col, select

from registry import audit, keys, lineage, people, privacy, trial_rows
from registry.crypto import Keyring
from registry.deployment import AUDIT_PURPOSE, Act
from registry.inserting import insert_ignoring_duplicates
from registry.models import (
    ApiKey,
    Dataset,
    DatasetItem,
    Erasure,
    ErasureEffect,
    FeedbackEvent,
    IdempotencyKey,
    ModelVersion,
    TrainingData,
    User,
    UserInteraction,
)

BATCH_ROWS = 500
DATASET, VERSION = "dataset", "version"


def begin(
    session: Session, act: Act, external_id: str, *, approved_by: str, policy: str
) -> Erasure:
    """Note that a user is to be erased; an erasure that is under way goes on.

    `policy`: what becomes of versions that learned from them (setting
    privacy.erased_versions).
    """
    user_id = act.keyring.pseudonym(external_id)
    subject = privacy.subject_of(user_id, act.keyring)
    _lock(session, user_id, now=act.now)
    found = session.exec(
        select(Erasure).where(Erasure.subject == subject, col(Erasure.completed_at).is_(None))
    ).first()
    if found is not None:
        found.requested_at = act.now
        session.add(found)
        return found
    erasure_id = act.new_id()
    place = f"erasures.external_id:{erasure_id}"
    erasure = Erasure(
        id=erasure_id,
        subject=subject,
        user_id=user_id,
        external_id_encrypted=act.keyring.encrypt(external_id, context=place),
        requested_by=act.actor,
        approved_by=approved_by,
        policy=policy,
        requested_at=act.now,
    )
    session.add(erasure)
    _audit(session, act, "erase_user", erasure, details={"policy": policy})
    session.flush()
    return erasure


def pending(session: Session) -> Sequence[Erasure]:
    """Erasures that were begun and not completed."""
    return session.exec(
        select(Erasure).where(col(Erasure.completed_at).is_(None)).order_by(Erasure.id)
    ).all()


def unscrubbed(session: Session) -> Sequence[Erasure]:
    """Erasures that are complete, but for the database's free space."""
    return session.exec(
        select(Erasure).where(
            col(Erasure.completed_at).is_not(None), col(Erasure.scrubbed_at).is_(None)
        )
    ).all()


def external_id_of(erasure: Erasure, keyring: Keyring) -> str:
    """Whom an erasure under way is about."""
    assert erasure.external_id_encrypted is not None
    return keyring.decrypt(
        erasure.external_id_encrypted, context=f"erasures.external_id:{erasure.id}"
    )


def interaction_ids(session: Session, erasure: Erasure) -> frozenset[str]:
    """What is left of the user's interactions."""
    found = select(UserInteraction.id).where(UserInteraction.user_id == erasure.user_id)
    return frozenset(session.exec(found))


def hold(session: Session, erasure_id: str) -> Erasure:
    """The erasure as it is now; two passes over one wait for each other."""
    return session.get_one(Erasure, erasure_id, with_for_update=True, populate_existing=True)


def delete_some(session: Session, erasure_id: str, *, batch_rows: int = BATCH_ROWS) -> bool:
    """Delete some of the user's interactions and all that hangs on them; whether any were left.

    Datasets that held them, and versions that learned from them, are noted first. Where another
    pass has completed the erasure, nothing is.
    """
    erasure = hold(session, erasure_id)
    if erasure.user_id is None:
        return False
    ids = session.exec(
        select(UserInteraction.id)
        .where(UserInteraction.user_id == erasure.user_id)
        .limit(batch_rows)
    ).all()
    if not ids:
        return False
    samples = session.exec(
        select(TrainingData.id)
        .where(col(TrainingData.source_interaction_id).in_(ids))
        .with_for_update()  # a dataset that is just being registered is waited for
    ).all()
    _note_effects(session, erasure, samples)
    _count(session, erasure, ids)
    trial_rows.forget(session, ids)
    session.connection().execute(delete(UserInteraction).where(col(UserInteraction.id).in_(ids)))
    return True


def delete_user(session: Session, act: Act, erasure_id: str) -> None:
    """Delete what is the user's own: keys, answers kept for repetition, the user."""
    erasure = hold(session, erasure_id)
    if erasure.user_id is None:
        return
    _lock(session, erasure.user_id, now=act.now)
    # What was being written when the erasure began is there now.
    while delete_some(session, erasure_id):
        pass
    external_id = external_id_of(erasure, act.keyring)
    own_keys = [
        key.prefix
        for key in session.exec(select(ApiKey).where(col(ApiKey.subject_encrypted).is_not(None)))
        if keys.subject_of(key, act.keyring) == external_id
    ]
    conditions: list[tuple[type[SQLModel], object]] = [
        (ApiKey, col(ApiKey.prefix).in_(own_keys)),
        (IdempotencyKey, col(IdempotencyKey.user_id) == erasure.user_id),
        (User, col(User.id) == erasure.user_id),
    ]
    # Of reviews that the user gave of others' answers, only who gave them.
    session.connection().execute(
        update(FeedbackEvent)
        .where(col(FeedbackEvent.rater_id) == erasure.user_id)
        .values(rater_id=None)
    )
    counts = dict(erasure.counts)
    for table, condition in conditions:
        gone = session.connection().execute(delete(table).where(condition))  # type: ignore[arg-type]
        name = str(table.__tablename__)
        counts[name] = counts.get(name, 0) + gone.rowcount
    counts["actors"] = counts.get("actors", 0) + people.forget(session, external_id, act.keyring)
    erasure.counts = counts
    session.add(erasure)


def effects(session: Session, erasure_id: str) -> Sequence[ErasureEffect]:
    """The datasets and versions that an erasure touched."""
    return session.exec(
        select(ErasureEffect)
        .where(ErasureEffect.erasure_id == erasure_id)
        .order_by(col(ErasureEffect.kind), col(ErasureEffect.name))
    ).all()


def note_late_versions(session: Session) -> int:
    """Note versions that were made since, of a touched dataset or a touched parent."""
    known: dict[str, set[str]] = {}
    datasets: dict[str, set[str]] = {}
    owners: dict[str, Erasure] = {}
    for effect in session.exec(select(ErasureEffect)).all():
        groups = known if effect.kind == VERSION else datasets
        groups.setdefault(effect.erasure_id, set()).add(effect.name)
        owners[effect.erasure_id] = session.get_one(Erasure, effect.erasure_id)
    rows = session.exec(
        select(
            ModelVersion.version,
            ModelVersion.parent_version,
            ModelVersion.training_dataset_id,
            ModelVersion.workload,
        ).order_by(col(ModelVersion.created_at), col(ModelVersion.version))
    ).all()
    added = 0
    for erasure_id, erasure in owners.items():
        tainted = known.get(erasure_id, set())
        for version, parent, dataset_id, workload in rows:
            learned = parent in tainted or dataset_id in datasets.get(erasure_id, set())
            if learned and version not in tainted:
                tainted.add(version)
                added += _add_effect(session, erasure, VERSION, version, workload)
    return added


def touched_versions(session: Session) -> frozenset[str]:
    """Every version that learned from anything that was erased."""
    return frozenset(session.exec(select(ErasureEffect.name).where(ErasureEffect.kind == VERSION)))


def untouched_ancestor(session: Session, version: str) -> str | None:
    """The nearest version in a line that learned from nothing erased, and still has its adapter.

    None: the base model.
    """
    touched = touched_versions(session)
    row = session.get(ModelVersion, version)
    while row is not None and (row.version in touched or row.adapter_deleted_at is not None):
        row = session.get(ModelVersion, row.parent_version) if row.parent_version else None
    return None if row is None else row.version


def _lock(session: Session, user_id: str, *, now: datetime) -> None:
    """Wait for whoever is writing rows of this user; SQLite has one writer at a time anyway."""
    if session.connection().dialect.name != "postgresql":
        return
    insert_ignoring_duplicates(session, User, [{"id": user_id, "created_at": now}])
    session.exec(select(User.id).where(User.id == user_id).with_for_update()).all()


def _note_effects(session: Session, erasure: Erasure, samples: Sequence[str]) -> None:
    """One sample of each dataset tells which versions learned from that dataset."""
    found = session.exec(
        select(
            DatasetItem.dataset_id, Dataset.workload, func.min(TrainingData.source_interaction_id)
        )
        .join(Dataset, col(Dataset.id) == col(DatasetItem.dataset_id))
        .join(TrainingData, col(TrainingData.id) == col(DatasetItem.training_data_id))
        .where(col(DatasetItem.training_data_id).in_(samples))
        .group_by(DatasetItem.dataset_id, Dataset.workload)
    ).all()
    for dataset_id, workload, interaction_id in found:
        _add_effect(session, erasure, DATASET, dataset_id, workload)
        for version in lineage.versions_of(session, interaction_id):
            _add_effect(session, erasure, VERSION, version, workload)


def _add_effect(session: Session, erasure: Erasure, kind: str, name: str, workload: str) -> int:
    actions = {"list": "listed", "retire": "retired", "retrain": "retrain"}
    return insert_ignoring_duplicates(
        session,
        ErasureEffect,
        [
            {
                "erasure_id": erasure.id,
                "kind": kind,
                "name": name,
                "workload": workload,
                "action": "deleted" if kind == DATASET else actions[erasure.policy],
            }
        ],
    )


def _count(session: Session, erasure: Erasure, ids: Sequence[str]) -> None:
    counts = dict(erasure.counts)
    for name, column in (
        ("user_interactions", "id"),
        ("feedback_events", "interaction_id"),
        ("client_metadata", "interaction_id"),
        ("training_data", "source_interaction_id"),
    ):
        table = SQLModel.metadata.tables[name]
        query = select_columns(func.count()).where(table.c[column].in_(ids))
        counts[name] = counts.get(name, 0) + session.connection().execute(query).scalar_one()
    erasure.counts = counts
    session.add(erasure)


def _audit(
    session: Session, act: Act, action: str, erasure: Erasure, *, details: dict[str, object]
) -> None:
    audit.record(
        session,
        key=act.keyring.derive(AUDIT_PURPOSE),
        actor=act.actor,
        action=action,
        subject=f"erasure:{erasure.id}",
        now=act.now,
        details={"approved_by": erasure.approved_by, **details},
    )
