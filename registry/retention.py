"""Deletes what was kept long enough: in batches, oldest first, each batch a transaction.

Of interactions there stay totals per day, version and role (`retained_usage`).
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, not_
from sqlalchemy import select as select_columns
from sqlmodel import Session, SQLModel, col, exists, select

from registry import acts, trial_rows
from registry.db import Database
from registry.deployment import Act
from registry.models import (
    ClientMetadata,
    CurationRun,
    Dataset,
    ExperimentDecision,
    IdempotencyKey,
    ReplicaStatus,
    RetainedUsage,
    TriggerCheck,
    User,
    UserInteraction,
    Workload,
)
from registry.settings_privacy import RetentionSettings

BASE = "base"
REPLICA_DAYS = 1.0
Pause = Callable[[], None]
"""Called between batches, so that others get their turn at the database."""


def expire(
    database: Database, act: Act, settings: RetentionSettings, *, pause: Pause
) -> dict[str, int]:
    """Delete what is older than the settings allow; how much, by table.

    Each batch leaves its entry in the audit log: that so much went, not what it was.
    """

    def rows(days: float | None, table: type[SQLModel], key: Any, moment: Any) -> int:
        if days is None:
            return 0
        old = moment < act.now - timedelta(days=days)
        return _batches(database, act, table, key, old, settings.batch_rows, pause)

    operations = settings.operations_days
    return {
        "interactions": _expire_interactions(database, act, settings, pause=pause),
        "client_metadata": rows(
            settings.client_metadata_days,
            ClientMetadata,
            col(ClientMetadata.interaction_id),
            col(ClientMetadata.created_at),
        ),
        "users": _expire_users(database, act, settings, pause=pause),
        "idempotency_keys": rows(
            0, IdempotencyKey, col(IdempotencyKey.id), col(IdempotencyKey.expires_at)
        ),
        "curation_runs": _expire_curation(database, act, settings, pause=pause),
        "trigger_checks": rows(
            operations, TriggerCheck, col(TriggerCheck.id), col(TriggerCheck.checked_at)
        ),
        "experiment_decisions": rows(
            operations,
            ExperimentDecision,
            col(ExperimentDecision.id),
            col(ExperimentDecision.decided_at),
        ),
        "replica_status": rows(
            REPLICA_DAYS, ReplicaStatus, col(ReplicaStatus.replica_id), col(ReplicaStatus.seen_at)
        ),
    }


def old_datasets(session: Session, settings: RetentionSettings, *, now: datetime) -> list[Dataset]:
    """Datasets whose files hold texts that are older than interactions are kept."""
    if settings.interactions_days is None:
        return []
    since = now - timedelta(days=settings.interactions_days)
    return list(
        session.exec(
            select(Dataset).where(
                col(Dataset.created_at) < since, col(Dataset.files_deleted_at).is_(None)
            )
        )
    )


def _expire_interactions(
    database: Database, act: Act, settings: RetentionSettings, *, pause: Pause
) -> int:
    """Workload by workload, as their index goes."""
    if settings.interactions_days is None:
        return 0
    until = act.now - timedelta(days=settings.interactions_days)
    with database.read() as session:
        workloads = session.exec(select(Workload.name)).all()
    return sum(
        _expire_workload(database, act, name, until, settings.batch_rows, pause)
        for name in workloads
    )


def _expire_workload(
    database: Database, act: Act, workload: str, until: datetime, batch_rows: int, pause: Pause
) -> int:
    total = 0
    created_at = col(UserInteraction.created_at)
    while True:
        with database.write() as session:
            ids = session.exec(
                select(UserInteraction.id)
                .where(UserInteraction.workload == workload, created_at < until)
                .order_by(created_at)
                .limit(batch_rows)
            ).all()
            _keep_totals(session, ids)
            trial_rows.forget(session, ids)
            session.connection().execute(
                delete(UserInteraction).where(col(UserInteraction.id).in_(ids))
            )
            _tell(session, act, UserInteraction, len(ids), workload=workload)
        total += len(ids)
        if len(ids) < batch_rows:
            return total
        pause()


def _keep_totals(session: Session, ids: Sequence[str]) -> None:
    row = UserInteraction
    query = select_columns(
        col(row.workload),
        col(row.created_at),
        func.coalesce(col(row.model_version), col(row.external_model), BASE),
        col(row.role),
        col(row.user_feedback),
        col(row.error).is_not(None),
        col(row.tokens_input),
        col(row.tokens_output),
        col(row.processing_time_ms),
    ).where(col(row.id).in_(ids))
    for workload, at, model, role, thumb, failed, tokens_in, tokens_out, ms in (
        session.connection().execute(query).all()
    ):
        key = {"workload": workload, "day": f"{at:%Y-%m-%d}", "model": model, "role": role}
        kept = session.get(RetainedUsage, tuple(key.values())) or RetainedUsage(**key)
        kept.total += 1
        kept.rated += thumb is not None
        kept.positive += thumb == 1
        kept.negative += thumb == -1
        kept.errors += failed
        kept.tokens_input += tokens_in or 0
        kept.tokens_output += tokens_out or 0
        kept.processing_time_ms += ms or 0.0
        session.add(kept)


def _expire_users(
    database: Database, act: Act, settings: RetentionSettings, *, pause: Pause
) -> int:
    """Users of whom nothing else is left. Whoever said no stays known, so that it holds."""
    if settings.users_days is None:
        return 0
    old = (
        (col(User.created_at) < act.now - timedelta(days=settings.users_days))
        & (col(User.consent) == "granted")
        & not_(exists().where(col(UserInteraction.user_id) == col(User.id)))
    )
    return _batches(database, act, User, col(User.id), old, settings.batch_rows, pause)


def _expire_curation(
    database: Database, act: Act, settings: RetentionSettings, *, pause: Pause
) -> int:
    """Never the latest of a workload: curation goes on from its watermark."""
    if settings.operations_days is None:
        return 0
    latest = select(func.max(CurationRun.watermark)).group_by(col(CurationRun.workload))
    old = (col(CurationRun.created_at) < act.now - timedelta(days=settings.operations_days)) & (
        col(CurationRun.watermark).not_in(latest)
    )
    return _batches(
        database, act, CurationRun, col(CurationRun.id), old, settings.batch_rows, pause
    )


def _batches(
    database: Database,
    act: Act,
    table: type[SQLModel],
    key: Any,
    old: ColumnElement[bool],
    batch_rows: int,
    pause: Pause,
) -> int:
    total = 0
    while True:
        with database.write() as session:
            ids = session.exec(select(key).where(old).limit(batch_rows)).all()
            # Whoever uses them is waited for; what is still old then is asked anew.
            session.exec(select(key).where(key.in_(ids)).order_by(key).with_for_update()).all()
            gone = delete(table).where(key.in_(ids), old)
            num_rows = session.connection().execute(gone).rowcount
            if table is not ReplicaStatus:  # replicas come and go by themselves
                _tell(session, act, table, num_rows)
        total += num_rows
        if len(ids) < batch_rows:
            return total
        pause()


def _tell(session: Session, act: Act, table: type[SQLModel], number: int, **details: str) -> None:
    if number:
        told = {"rows": number, **details}
        acts.record(
            session, act, action="expire", subject=f"table:{table.__tablename__}", details=told
        )
