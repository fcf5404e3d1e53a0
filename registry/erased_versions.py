"""What becomes of versions that learned from what was erased, as the policy has it."""

from collections.abc import Sequence
from typing import cast

from sqlmodel import Session, col, select

from registry import arms, deployment, erasure, experiments, holdback, versions
from registry.deployment import Act, Mode
from registry.models import DeploymentState, ErasureEffect, Experiment
from registry.versions import Status


def carry_out(session: Session, act: Act) -> Sequence[str]:
    """Do what is left to do, but for trainings; the versions taken out of service by it."""
    deployment.lock_all(session)  # before the audit log, which the first change holds
    touched = erasure.touched_versions(session)
    taken_out = []
    for effect in _open(session):
        if effect.action == "retrain":
            continue
        if effect.action == "retired" and _take_out(session, act, effect.name, touched):
            taken_out.append(effect.name)
        effect.done_at = act.now
        session.add(effect)
    session.flush()
    return taken_out


def workloads_to_retrain(session: Session) -> Sequence[str]:
    """The workloads whose champion is to be replaced by one that learned from nothing erased."""
    return sorted({effect.workload for effect in _open(session) if effect.action == "retrain"})


def retraining_began(session: Session, act: Act, workload: str) -> None:
    """Note that the training of a workload was asked for."""
    for effect in _open(session):
        if effect.action == "retrain" and effect.workload == workload:
            effect.done_at = act.now
            session.add(effect)


def _open(session: Session) -> Sequence[ErasureEffect]:
    return session.exec(
        select(ErasureEffect)
        .where(ErasureEffect.kind == erasure.VERSION, col(ErasureEffect.done_at).is_(None))
        .order_by(col(ErasureEffect.name))
    ).all()


def _take_out(session: Session, act: Act, version: str, touched: frozenset[str]) -> bool:
    """Have another version answer; the base model where the one before is touched too."""
    row = versions.get(session, version)
    state = deployment.lock(session, row.workload)
    if row.deployment_status == Status.REGISTERED:
        versions.transition(session, version, Status.RETIRED, reason=act.reason, now=act.now)
        return True
    trial = None if state.experiment_id is None else experiments.get(session, state.experiment_id)
    tried = [] if trial is None else arms.running(session, trial)
    if version not in (state.champion, state.previous, *tried):
        return False
    if trial is not None:
        _leave_trial(session, act, state, trial, version)
    if state.previous in touched:
        _forget_previous(session, act, state)
    if state.champion == version:
        experiments.roll_back_champion(session, act, workload=row.workload)
    return True


def _leave_trial(
    session: Session, act: Act, state: DeploymentState, trial: Experiment, version: str
) -> None:
    """One of several challengers leaves; with the champion, or the last, the trial ends."""
    tried = arms.running(session, trial)
    if version in tried and len(tried) > 1:
        experiments.drop(
            session, act, experiment_id=trial.id, version=version, status=Status.RETIRED
        )
    elif version in (state.champion, *tried):
        holdback.end_if_running(session, act, state)
        if state.experiment_id is not None:
            experiments.stop(session, act, experiment_id=trial.id, status=Status.RETIRED)


def _forget_previous(session: Session, act: Act, state: DeploymentState) -> None:
    deployment.change(
        session,
        state,
        act,
        action="forget_previous",
        champion=state.champion,
        challenger=state.challenger,
        previous=None,
        share=state.share,
        experiment_id=state.experiment_id,
        mode=cast(Mode, state.mode),
    )
