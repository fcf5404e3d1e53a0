"""Makes a restored database consistent with what is there: artifacts, processes, time.

Nothing is made up: every change goes through the lifecycle's own functions, and so into the
production history and the audit log.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from sqlmodel import Session, col, select

from registry import acts, arms, deployment, experiments, holdback, runs
from registry.artifacts import ArtifactStore
from registry.audit_check import Fault, check
from registry.backup_manifest import Manifest
from registry.deployment import AUDIT_PURPOSE, Act, Mode
from registry.models import DeploymentState, ModelVersion, RetrainRun
from registry.versions import Status


@dataclass(frozen=True)
class Repairs:
    """What had to be changed for the past to be served again."""

    interrupted_trainings: tuple[str, ...]
    withdrawn_versions: tuple[str, ...]
    """Live versions whose adapter is nowhere to be had."""
    audit_fault: Fault | None
    """What was wrong with the audit log already when it was backed up."""


def settle(
    session: Session,
    act: Act,
    manifest: Manifest,
    store: ArtifactStore,
    generations: Mapping[str, int],
) -> Repairs:
    """Close what cannot go on, withdraw what cannot be served, and write the restore down.

    `generations`: what replicas may have followed before; the restored state goes on from there.
    """
    fault = check(session, keys=[act.keyring.derive(AUDIT_PURPOSE)]).fault
    acts.record(
        session,
        act,
        action="restore",
        subject=f"backup:{manifest.created_at:%Y-%m-%dT%H:%M:%SZ}",
        details={"backup": manifest.seal, "schema": manifest.schema_revision},
    )
    trainings = _close_trainings(session, act)
    withdrawn = [
        version
        for row in session.exec(select(DeploymentState).order_by(col(DeploymentState.workload)))
        for version in _settle_workload(session, act, row, store, generations.get(row.workload, 0))
    ]
    return Repairs(tuple(trainings), tuple(withdrawn), fault)


def _close_trainings(session: Session, act: Act) -> list[str]:
    found = session.exec(select(RetrainRun).where(RetrainRun.status == "running")).all()
    for run in found:
        reason = f"interrupted: {act.reason}"
        runs.finish(session, run.id, status="failed", reason=reason, now=act.now)
        acts.record(
            session,
            act,
            action="end_training",
            subject=f"training:{run.id}",
            details={"status": "failed"},
        )
    return [run.id for run in found]


def _settle_workload(
    session: Session, act: Act, row: DeploymentState, store: ArtifactStore, generation: int
) -> list[str]:
    """Take out of the desired state what cannot be loaded; those versions."""
    if row.generation == 0 and generation == 0:
        return []  # nothing was ever decided
    row.generation = max(row.generation, generation)
    tried = _on_trial(session, row)
    lost = [
        version
        for version in dict.fromkeys((row.champion, row.challenger, row.previous, *tried))
        if version is not None and not _is_there(session, version, store)
    ]
    if row.previous in lost:
        row.previous = None
    session.add(row)
    session.flush()
    if {row.champion, *tried} & set(lost):
        _end_trial(session, act, row, lost)
    if row.champion in lost:
        experiments.roll_back_champion(session, act, workload=row.workload)
    # Even where nothing is lost: the history tells that there was a restore, and when.
    deployment.change(
        session,
        row,
        act,
        action="restore",
        champion=row.champion,
        challenger=row.challenger,
        previous=row.previous,
        share=row.share,
        experiment_id=row.experiment_id,
        mode=cast(Mode, row.mode),
    )
    return lost


def _end_trial(session: Session, act: Act, row: DeploymentState, lost: Collection[str]) -> None:
    """End what lacks a side: a hold-back in favour of the other one, a trial without a promotion.

    A hold-back that lacks both is confirmed, and leaves a champion that is lost.
    """
    if row.mode == holdback.KIND:
        step = holdback.confirm if row.challenger in lost else holdback.undo
        step(session, act, row)
    elif row.experiment_id is not None:
        experiments.stop(session, act, experiment_id=row.experiment_id, status=Status.ROLLED_BACK)


def _on_trial(session: Session, row: DeploymentState) -> list[str | None]:
    if row.experiment_id is None:
        return [row.challenger]
    return [
        row.challenger,
        *arms.running(session, experiments.get(session, row.experiment_id)),
    ]


def _is_there(session: Session, version: str, store: ArtifactStore) -> bool:
    found = session.get(ModelVersion, version)
    return found is not None and store.exists(found.adapter_digest)
