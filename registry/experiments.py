"""Experiments: start one, record what was decided, and carry the decision out.

Each function is one step inside the caller's transaction; it locks the workload's row
first, so that of two that act at once the second sees what the first has done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from registry import deployment, versions
from registry.deployment import Act
from registry.errors import ConflictError, NotFoundError
from registry.models import (
    DeploymentState,
    Experiment,
    ExperimentDecision,
    UserInteraction,
)
from registry.versions import Status


@dataclass(frozen=True)
class Observation:
    """One answer of an experiment, as its statistics need it."""

    role: str
    user_id: str | None
    quality: float | None
    thumb: int | None
    latency_ms: float | None
    failed: bool
    created_at: datetime


def start(
    session: Session,
    act: Act,
    *,
    workload: str,
    challenger: str,
    share: float,
    settings: dict[str, Any],
) -> Experiment:
    """Put `challenger` on trial at `share` of the traffic against whoever serves now.

    Raises `ConflictError` where a trial is running already.
    """
    state = deployment.lock(session, workload)
    if state.experiment_id is not None:
        raise ConflictError(
            f"workload '{workload}' already tries '{state.challenger}': "
            "wait for its decision, or retire it"
        )
    versions.transition(session, challenger, Status.CHALLENGER, reason=act.reason, now=act.now)
    experiment = Experiment(
        id=act.new_id(),
        workload=workload,
        champion=state.champion,
        challenger=challenger,
        share=share,
        settings=settings,
        started_at=act.now,
    )
    session.add(experiment)
    session.flush()
    deployment.change(
        session,
        state,
        act,
        action="start_experiment",
        champion=state.champion,
        challenger=challenger,
        previous=state.previous,
        share=share,
        experiment_id=experiment.id,
    )
    return experiment


def ramp(session: Session, act: Act, *, experiment_id: str, share: float) -> None:
    """Give the challenger `share` of the traffic; a paused trial goes on with it."""
    experiment, state = _running(session, experiment_id)
    experiment.share = share
    session.add(experiment)
    _give(session, act, state, action="set_share", share=share)


def pause(session: Session, act: Act, *, experiment_id: str) -> None:
    """Send the challenger no traffic until the trial is resumed; nothing counts meanwhile."""
    _, state = _running(session, experiment_id)
    if state.share == 0:
        raise ConflictError(f"the trial of workload '{state.workload}' is paused already")
    _give(session, act, state, action="pause_experiment", share=0.0)


def resume(session: Session, act: Act, *, experiment_id: str) -> None:
    """Give the challenger of a paused trial the share that it had."""
    experiment, state = _running(session, experiment_id)
    if state.share != 0:
        raise ConflictError(f"the trial of workload '{state.workload}' is not paused")
    _give(session, act, state, action="resume_experiment", share=experiment.share)


def promote(session: Session, act: Act, *, experiment_id: str) -> None:
    """The challenger becomes champion; the old champion retires but stays loaded."""
    experiment, state = _running(session, experiment_id)
    challenger = state.challenger
    _end(session, experiment, "promoted", act)
    if state.champion is not None:
        versions.transition(session, state.champion, Status.RETIRED, reason=act.reason, now=act.now)
    if challenger is None:
        raise ConflictError(f"experiment '{experiment_id}' has no challenger any more")
    versions.transition(session, challenger, Status.CHAMPION, reason=act.reason, now=act.now)
    deployment.change(
        session,
        state,
        act,
        action="promote",
        champion=challenger,
        challenger=None,
        previous=state.champion,
        share=0.0,
        experiment_id=None,
    )


def stop(session: Session, act: Act, *, experiment_id: str, status: Status) -> None:
    """End the trial without a promotion: `status` is ROLLED_BACK or RETIRED."""
    experiment, state = _running(session, experiment_id)
    _end(session, experiment, status.value, act)
    if state.challenger is not None:
        versions.transition(session, state.challenger, status, reason=act.reason, now=act.now)
    deployment.change(
        session,
        state,
        act,
        action="roll_back" if status is Status.ROLLED_BACK else "retire_challenger",
        champion=state.champion,
        challenger=None,
        previous=state.previous,
        share=0.0,
        experiment_id=None,
    )


def deploy(session: Session, act: Act, *, workload: str, version: str) -> None:
    """Make `version` champion at once, without a trial. A running trial forbids it."""
    state = deployment.lock(session, workload)
    if state.experiment_id is not None:
        raise ConflictError(f"workload '{workload}' has a trial running: end it first")
    if state.champion is not None:
        versions.transition(session, state.champion, Status.RETIRED, reason=act.reason, now=act.now)
    versions.transition(session, version, Status.CHAMPION, reason=act.reason, now=act.now)
    deployment.change(
        session,
        state,
        act,
        action="deploy",
        champion=version,
        challenger=None,
        previous=state.champion,
        share=0.0,
        experiment_id=None,
    )


def roll_back_champion(session: Session, act: Act, *, workload: str) -> None:
    """Return to the previous champion (the base model where there was none)."""
    state = deployment.lock(session, workload)
    if state.experiment_id is not None:
        raise ConflictError(f"workload '{workload}' has a trial running: end it first")
    if state.champion is None:
        raise ConflictError(f"workload '{workload}' has no champion to roll back")
    versions.transition(session, state.champion, Status.ROLLED_BACK, reason=act.reason, now=act.now)
    if state.previous is not None:
        versions.transition(
            session, state.previous, Status.CHAMPION, reason=act.reason, now=act.now
        )
    deployment.change(
        session,
        state,
        act,
        action="roll_back",
        champion=state.previous,
        challenger=None,
        previous=None,
        share=0.0,
        experiment_id=None,
    )


def running(session: Session, *, workload: str) -> Experiment | None:
    """The workload's running experiment, if any."""
    return session.exec(
        select(Experiment).where(Experiment.workload == workload, Experiment.status == "running")
    ).first()


def record_decision(
    session: Session,
    *,
    decision_id: str,
    experiment_id: str,
    action: str,
    reasons: list[str],
    facts: dict[str, Any],
    now: datetime,
) -> None:
    """Keep one look at an experiment, whatever it decided."""
    session.add(
        ExperimentDecision(
            id=decision_id,
            experiment_id=experiment_id,
            action=action,
            reasons={"reasons": reasons},
            facts=facts,
            decided_at=now,
        )
    )
    session.flush()


def last_decisions(
    session: Session, *, workload: str, limit: int = 5
) -> Sequence[ExperimentDecision]:
    """The workload's latest decisions, newest first."""
    return session.exec(
        select(ExperimentDecision)
        .join(Experiment, col(Experiment.id) == col(ExperimentDecision.experiment_id))
        .where(Experiment.workload == workload)
        .order_by(col(ExperimentDecision.decided_at).desc(), col(ExperimentDecision.id).desc())
        .limit(limit)
    ).all()


def observations(session: Session, *, experiment_id: str) -> list[Observation]:
    """Every answer of an experiment that counts, in the order it was given."""
    rows = session.connection().execute(
        select_columns(
            col(UserInteraction.role),
            col(UserInteraction.user_id),
            col(UserInteraction.quality_score),
            col(UserInteraction.user_feedback),
            col(UserInteraction.processing_time_ms),
            col(UserInteraction.error).is_not(None),
            col(UserInteraction.created_at),
        )
        .where(
            col(UserInteraction.experiment_id) == experiment_id,
            col(UserInteraction.role) != "shadow",
        )
        .order_by(col(UserInteraction.created_at), col(UserInteraction.id))
    )
    return [Observation(*row) for row in rows.tuples()]


def _running(session: Session, experiment_id: str) -> tuple[Experiment, DeploymentState]:
    experiment = session.get(Experiment, experiment_id)
    if experiment is None:
        raise NotFoundError(f"no experiment '{experiment_id}'")
    state = deployment.lock(session, experiment.workload)
    session.refresh(experiment)
    if experiment.status != "running" or state.experiment_id != experiment_id:
        raise ConflictError(f"experiment '{experiment_id}' is {experiment.status}, not running")
    return experiment, state


def _give(session: Session, act: Act, state: DeploymentState, *, action: str, share: float) -> None:
    deployment.change(
        session,
        state,
        act,
        action=action,
        champion=state.champion,
        challenger=state.challenger,
        previous=state.previous,
        share=share,
        experiment_id=state.experiment_id,
    )


def _end(session: Session, experiment: Experiment, status: str, act: Act) -> None:
    experiment.status = status
    experiment.reason = act.reason
    experiment.ended_at = act.now
    session.add(experiment)
    session.flush()
