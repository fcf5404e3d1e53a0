"""Experiments: start one, record what was decided, and carry the decision out.

Each function is one step inside the caller's transaction; it locks the workload's row
first, so that of two that act at once the second sees what the first has done.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, func, select

from registry import acts, arms, deployment, holdback, versions
from registry.deployment import Act
from registry.errors import ConflictError, NotFoundError
from registry.models import (
    DeploymentState,
    Experiment,
    ExperimentDecision,
)
from registry.versions import Status

TRIAL, ITSELF = "trial", "itself"
"""Kinds of experiments: one that decides who serves, and a champion against itself."""


def start(
    session: Session,
    act: Act,
    *,
    workload: str,
    challenger: str,
    share: float,
    settings: dict[str, Any],
    rivals: Sequence[str] = (),
    kind: str = TRIAL,
) -> Experiment:
    """Put `challenger`, and `rivals` beside it, on trial against whoever serves now.

    They divide `share` of the traffic equally; without a share they start in the shadow,
    answering copies. Raises `ConflictError` where a trial is running already, or a version is
    named twice; a hold-back ends, its promotion confirmed.
    """
    challengers = [challenger, *rivals]
    if len(set(challengers)) < len(challengers):
        raise ConflictError(f"a version is named twice: {', '.join(challengers)}")
    state = deployment.lock(session, workload)
    holdback.end_if_running(session, act, state)
    if state.experiment_id is not None:
        raise ConflictError(
            f"workload '{workload}' already tries '{state.challenger}': "
            "wait for its decision, or retire it"
        )
    status = Status.CHALLENGER if share > 0 else Status.SHADOW
    for version in challengers:
        versions.transition(session, version, status, reason=act.reason, now=act.now)
    experiment = Experiment(
        id=act.new_id(),
        workload=workload,
        champion=state.champion,
        challenger=challenger,
        share=share,
        kind=kind,
        settings=settings,
        started_at=act.now,
    )
    session.add(experiment)
    session.flush()
    arms.begin(session, experiment, challengers)
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
        mode="trial" if share > 0 else "shadow",
    )
    return experiment


def ramp(session: Session, act: Act, *, experiment_id: str, share: float) -> None:
    """Give the challenger `share` of the traffic; a paused trial goes on with it.

    From the shadow it comes before people. Raises `ConflictError` for a share of 0: `pause`
    does that.
    """
    experiment, state = _running_trial(session, experiment_id)
    if share <= 0:
        raise ConflictError("a share of 0 is no trial: pause it instead")
    if state.mode == "shadow":
        for version in arms.running(session, experiment):
            versions.transition(session, version, Status.CHALLENGER, reason=act.reason, now=act.now)
    experiment.share = share
    session.add(experiment)
    _give(session, act, state, action="set_share", share=share)


def pause(session: Session, act: Act, *, experiment_id: str) -> None:
    """Send the challenger no traffic until the trial is resumed; nothing counts meanwhile."""
    _, state = _running_trial(session, experiment_id)
    if state.share == 0:
        raise ConflictError(f"the trial of workload '{state.workload}' is paused already")
    _give(session, act, state, action="pause_experiment", share=0.0)


def resume(session: Session, act: Act, *, experiment_id: str) -> None:
    """Give the challenger of a paused trial the share that it had."""
    experiment, state = _running_trial(session, experiment_id)
    if state.share != 0 or experiment.share == 0:
        raise ConflictError(f"the trial of workload '{state.workload}' is not paused")
    _give(session, act, state, action="resume_experiment", share=experiment.share)


def freeze(session: Session, act: Act, *, experiment_id: str, frozen: bool) -> None:
    """Leave the trial as it is until told otherwise: only a guardrail can end it."""
    experiment, state = _running(session, experiment_id)
    if experiment.frozen == frozen:
        word = "frozen" if frozen else "not frozen"
        raise ConflictError(f"the trial of workload '{state.workload}' is {word} already")
    experiment.frozen = frozen
    session.add(experiment)
    action = "freeze_experiment" if frozen else "unfreeze_experiment"
    acts.record(session, act, action=action, subject=f"experiment:{experiment_id}")


def promote(session: Session, act: Act, *, experiment_id: str, version: str | None = None) -> None:
    """The challenger becomes champion; the old champion retires but stays loaded.

    Of several it is `version`, and the others retire. With a `holdback_share` in the
    experiment's settings, so many people keep the old one for a while, and a hold-back
    experiment runs. Raises `ConflictError` where none of several is named.
    """
    experiment, state = _running_trial(session, experiment_id)
    if experiment.kind == ITSELF:
        raise ConflictError(f"'{state.champion}' is on trial against itself: nobody can win")
    tried = arms.running(session, experiment)
    if version is not None:
        arms.lead(session, state, experiment, version)
    elif len(tried) > 1:
        raise ConflictError(f"several are on trial, name one: {', '.join(tried)}")
    challenger = state.challenger
    arms.close_others(session, act, experiment, Status.RETIRED, winner=challenger)
    holdback.end(session, experiment, "promoted", act)
    if state.champion is not None:
        versions.transition(session, state.champion, Status.RETIRED, reason=act.reason, now=act.now)
    if challenger is None:
        raise ConflictError(f"experiment '{experiment_id}' has no challenger any more")
    if state.mode == "shadow":
        versions.transition(session, challenger, Status.CHALLENGER, reason=act.reason, now=act.now)
    versions.transition(session, challenger, Status.CHAMPION, reason=act.reason, now=act.now)
    if float(experiment.settings.get("holdback_share", 0)) > 0:
        holdback.begin(session, act, state, experiment)
        return
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
    experiment, state = _running_trial(session, experiment_id)
    arms.close_others(session, act, experiment, status)
    holdback.end(session, experiment, status.value, act)
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


def drop(session: Session, act: Act, *, experiment_id: str, version: str, status: Status) -> None:
    """One of several challengers leaves; the trial of the others goes on."""
    experiment, state = _running_trial(session, experiment_id)
    arms.drop(session, act, state, experiment, version=version, status=status)


def deploy(session: Session, act: Act, *, workload: str, version: str) -> None:
    """Make `version` champion at once, without a trial. A running trial forbids it."""
    state = deployment.lock(session, workload)
    if state.champion == version:
        # Once more, it would be the champion to return to as well.
        raise ConflictError(f"version '{version}' is the champion of workload '{workload}' already")
    holdback.end_if_running(session, act, state)
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
    holdback.take_back(session, act, state, earlier=state.previous)


def running(session: Session, *, workload: str) -> Experiment | None:
    """The workload's running experiment, if any."""
    return session.exec(
        select(Experiment).where(Experiment.workload == workload, Experiment.status == "running")
    ).first()


def get(session: Session, experiment_id: str) -> Experiment:
    """The experiment of that id. Raises `NotFoundError`."""
    found = session.get(Experiment, experiment_id)
    if found is None:
        raise NotFoundError(f"no experiment '{experiment_id}'")
    return found


def list_experiments(session: Session, *, workload: str, limit: int = 50) -> Sequence[Experiment]:
    """The workload's experiments, newest first."""
    return session.exec(
        select(Experiment)
        .where(Experiment.workload == workload)
        .order_by(col(Experiment.started_at).desc(), col(Experiment.id).desc())
        .limit(limit)
    ).all()


def record_decision(
    session: Session,
    *,
    decision_id: str,
    experiment_id: str,
    action: str,
    reasons: list[str],
    facts: dict[str, Any],
    now: datetime,
    version: str | None = None,
) -> None:
    """Keep one look at an experiment, whatever it decided; of several at `version`."""
    session.add(
        ExperimentDecision(
            id=decision_id,
            experiment_id=experiment_id,
            version=version,
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


def last_look(session: Session, experiment: Experiment) -> datetime | None:
    """When the experiment was looked at last."""
    return session.exec(
        select(func.max(ExperimentDecision.decided_at)).where(
            ExperimentDecision.experiment_id == experiment.id
        )
    ).one()


def decisions(session: Session, *, experiment_id: str) -> Sequence[ExperimentDecision]:
    """All looks at one experiment, oldest first."""
    return session.exec(
        select(ExperimentDecision)
        .where(ExperimentDecision.experiment_id == experiment_id)
        .order_by(col(ExperimentDecision.decided_at), col(ExperimentDecision.id))
    ).all()


def _running(session: Session, experiment_id: str) -> tuple[Experiment, DeploymentState]:
    experiment = get(session, experiment_id)
    state = deployment.lock(session, experiment.workload)
    session.refresh(experiment)
    if experiment.status != "running" or state.experiment_id != experiment_id:
        raise ConflictError(f"experiment '{experiment_id}' is {experiment.status}, not running")
    return experiment, state


def _running_trial(session: Session, experiment_id: str) -> tuple[Experiment, DeploymentState]:
    experiment, state = _running(session, experiment_id)
    if experiment.kind == holdback.KIND:
        raise ConflictError(
            f"'{state.champion}' was promoted, and some people keep what was before: "
            "there is no trial to change"
        )
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
