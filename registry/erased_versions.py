"""What becomes of versions that learned from what was erased, as the policy has it."""

from collections.abc import Sequence
from typing import cast

from sqlmodel import Session, col, select

from registry import arms, deployment, erasure, experiments, holdback, versions
from registry.deployment import Act, Mode
from registry.models import DeploymentState, ErasureEffect
from registry.versions import Status


def carry_out(session: Session, act: Act) -> Sequence[str]:
    """Do what is left to do, but for trainings; the versions taken out of service by it."""
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
    status = Status(row.deployment_status)
    if status in (Status.REGISTERED, Status.SHADOW):
        versions.transition(session, version, Status.RETIRED, reason=act.reason, now=act.now)
        return True
    tried = [] if state.experiment_id is None else _on_trial(session, state.experiment_id)
    is_served = version in (state.champion, state.challenger, state.previous, *tried)
    if not is_served:
        return False
    if state.experiment_id is not None and version in (state.champion, state.challenger, *tried):
        holdback.end_if_running(session, act, state)
    if state.experiment_id is not None and version in (state.champion, state.challenger, *tried):
        experiments.stop(session, act, experiment_id=state.experiment_id, status=Status.RETIRED)
    if state.previous in touched:
        _forget_previous(session, act, state)
    if state.champion == version:
        experiments.roll_back_champion(session, act, workload=row.workload)
    return True


def _on_trial(session: Session, experiment_id: str) -> list[str]:
    return arms.running(session, experiments.get(session, experiment_id))


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
