"""After a promotion: some people keep the previous champion, so that it can be compared.

An experiment of kind "holdback", whose `champion` is the version promoted and whose
`challenger` is the one before it. Each function is one step inside the caller's transaction,
on a locked row of desired state.
"""

from sqlmodel import Session

from registry import deployment, versions
from registry.deployment import Act
from registry.errors import ConflictError
from registry.models import DeploymentState, Experiment
from registry.versions import Status

KIND = "holdback"


def begin(session: Session, act: Act, state: DeploymentState, trial: Experiment) -> None:
    """Promote the challenger of `trial`; the hold-back's share keeps what was champion."""
    share = float(trial.settings["holdback_share"])
    experiment = Experiment(
        id=act.new_id(),
        workload=state.workload,
        champion=state.challenger,
        challenger=state.champion,
        share=share,
        kind=KIND,
        settings=trial.settings,
        started_at=act.now,
    )
    session.add(experiment)
    session.flush()
    deployment.change(
        session,
        state,
        act,
        action="promote",
        champion=state.challenger,
        challenger=state.champion,
        previous=state.champion,
        share=share,
        experiment_id=experiment.id,
        mode="holdback",
    )


def end_if_running(session: Session, act: Act, state: DeploymentState) -> None:
    """Confirm the promotion where a hold-back is running; nothing happens elsewhere."""
    if state.mode == KIND and state.experiment_id is not None:
        confirm(session, act, state)


def confirm(session: Session, act: Act, state: DeploymentState) -> None:
    """The promoted version answers everybody from now on."""
    end(session, _running(session, state), "promoted", act)
    deployment.change(
        session,
        state,
        act,
        action="confirm_promotion",
        champion=state.champion,
        challenger=None,
        previous=state.previous,
        share=0.0,
        experiment_id=None,
    )


def undo(session: Session, act: Act, state: DeploymentState) -> None:
    """Take the promotion back: the previous champion (or the base model) answers everybody."""
    end(session, _running(session, state), Status.ROLLED_BACK.value, act)
    take_back(session, act, state, earlier=state.challenger)


def take_back(session: Session, act: Act, state: DeploymentState, *, earlier: str | None) -> None:
    """Have `earlier` (None: the base model) answer everybody in the champion's place."""
    if state.champion is not None:
        versions.transition(
            session, state.champion, Status.ROLLED_BACK, reason=act.reason, now=act.now
        )
    if earlier is not None:
        versions.transition(session, earlier, Status.CHAMPION, reason=act.reason, now=act.now)
    deployment.change(
        session,
        state,
        act,
        action="roll_back",
        champion=earlier,
        challenger=None,
        previous=None,
        share=0.0,
        experiment_id=None,
    )


def end(session: Session, experiment: Experiment, status: str, act: Act) -> None:
    """Close an experiment."""
    experiment.status = status
    experiment.reason = act.reason
    experiment.ended_at = act.now
    session.add(experiment)
    session.flush()


def _running(session: Session, state: DeploymentState) -> Experiment:
    """The hold-back of a locked row. Raises `ConflictError` where another look has ended it."""
    found = None
    if state.mode == KIND and state.experiment_id is not None:
        found = session.get(Experiment, state.experiment_id)
    if found is None or found.status != "running":
        raise ConflictError(f"workload '{state.workload}' has no promotion on watch")
    return found
