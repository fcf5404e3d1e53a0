"""Garbage collection of artifacts: adapters and datasets that nothing needs any more.

Kept: adapters of versions that are in service, may come into it, or are among the latest that
were; files of datasets that were not given up; and everything young.
"""

from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from registry import deployment, erasure
from registry.artifacts import ArtifactStore
from registry.db import Database
from registry.models import Dataset, DeploymentState, ModelVersion, QualityScorer, Workload
from registry.settings_privacy import RetentionSettings
from registry.versions import Status

HOPEFUL = (Status.REGISTERED, Status.SHADOW, Status.CHALLENGER, Status.CHAMPION)


def collect(
    database: Database,
    store: ArtifactStore,
    settings: RetentionSettings,
    *,
    now: datetime,
    drop_touched: bool,
) -> int:
    """Delete what nothing needs, and mark versions that can serve no more; how many entries.

    `drop_touched`: versions that learned from erased data are not kept for having served.
    """
    before = now - timedelta(days=settings.artifact_grace_days)
    old = {name for name, moment in store.entries().items() if moment < before}
    with database.write() as session:
        deployment.lock_all(session)  # nobody promotes what was just found to be unneeded
        unneeded = old - _needed(session, settings.keep_versions, drop_touched=drop_touched)
        for row in session.exec(
            select(ModelVersion).where(
                col(ModelVersion.adapter_digest).in_(unneeded),
                col(ModelVersion.adapter_deleted_at).is_(None),
            )
        ):
            row.adapter_deleted_at = now
            session.add(row)
    # Marked first: no version whose adapter is about to go can be promoted.
    return sum(store.remove(name) for name in sorted(unneeded))


def _needed(session: Session, keep_versions: int, *, drop_touched: bool) -> set[str]:
    live = set(
        session.exec(
            select(ModelVersion.adapter_digest).where(
                col(ModelVersion.deployment_status).in_(HOPEFUL)
            )
        )
    )
    touched = erasure.touched_versions(session) if drop_touched else frozenset[str]()
    for state in session.exec(select(DeploymentState)):
        names = [state.champion, state.challenger, state.previous]
        live |= set(
            session.exec(
                select(ModelVersion.adapter_digest).where(col(ModelVersion.version).in_(names))
            )
        )
    for workload in session.exec(select(Workload.name)):
        served = session.exec(
            select(ModelVersion)
            .where(ModelVersion.workload == workload, col(ModelVersion.deployed_at).is_not(None))
            .order_by(col(ModelVersion.deployed_at).desc())
            .limit(keep_versions)
        )
        live |= {row.adapter_digest for row in served if row.version not in touched}
    datasets = session.exec(select(Dataset.digest).where(col(Dataset.files_deleted_at).is_(None)))
    scorers = session.exec(select(QualityScorer.digest))
    return live | set(datasets) | set(scorers)
