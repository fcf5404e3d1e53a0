"""Several challengers on trial at once: who they are, and how one of them leaves.

A trial of one has no rows here. Each function is one step inside the caller's transaction, on a
locked row of desired state.
"""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from registry import deployment, versions
from registry.deployment import Act
from registry.errors import ConflictError
from registry.models import DeploymentState, Experiment, ExperimentArm
from registry.versions import Status


def of(session: Session, experiment_id: str) -> Sequence[ExperimentArm]:
    """All challengers of a trial of several, in their order; none where it has but one."""
    return session.exec(
        select(ExperimentArm)
        .where(ExperimentArm.experiment_id == experiment_id)
        .order_by(col(ExperimentArm.place))
    ).all()


def running(session: Session, experiment: Experiment) -> list[str]:
    """The versions on trial, also where that is one."""
    rows = of(session, experiment.id)
    if rows:
        return [row.version for row in rows if row.status == "running"]
    return [] if experiment.challenger is None else [experiment.challenger]


def begin(session: Session, experiment: Experiment, challengers: Sequence[str]) -> None:
    """Note the challengers of a new trial, where they are several."""
    if len(challengers) < 2:
        return
    for place, version in enumerate(challengers):
        session.add(ExperimentArm(experiment_id=experiment.id, version=version, place=place))
    session.flush()


def lead(session: Session, state: DeploymentState, experiment: Experiment, version: str) -> None:
    """Have `version`, one of those on trial, stand for the trial. Raises `ConflictError`."""
    if version not in running(session, experiment):
        raise ConflictError(f"'{version}' is not on trial in workload '{state.workload}'")
    state.challenger = experiment.challenger = version
    session.add(state)
    session.add(experiment)
    session.flush()


def drop(
    session: Session,
    act: Act,
    state: DeploymentState,
    experiment: Experiment,
    *,
    version: str,
    status: Status,
) -> None:
    """One of several leaves the trial; the others share its people.

    Raises `ConflictError` where it is not on trial, or the last.
    """
    tried = running(session, experiment)
    left = [name for name in tried if name != version]
    if version not in tried:
        raise ConflictError(f"'{version}' is not on trial in workload '{state.workload}'")
    if not left:
        raise ConflictError(f"'{version}' is the last on trial: end the trial instead")
    close(session, act, experiment.id, version, status)
    lead(session, state, experiment, left[0])
    deployment.change(
        session,
        state,
        act,
        action="drop_challenger",
        champion=state.champion,
        challenger=left[0],
        previous=state.previous,
        share=state.share,
        experiment_id=experiment.id,
        mode="shadow" if state.mode == "shadow" else "trial",
    )


def close_others(
    session: Session, act: Act, experiment: Experiment, status: Status, *, winner: str | None = None
) -> None:
    """The trial ends: `winner` is promoted, and all others go with `status`.

    The one that stands for the trial is left to whoever ends that.
    """
    for row in of(session, experiment.id):
        if row.status != "running":
            continue
        if row.version == experiment.challenger:
            row.status = "promoted" if row.version == winner else status.value
            row.reason, row.ended_at = act.reason, act.now
            session.add(row)
        else:
            close(session, act, experiment.id, row.version, status)
    session.flush()


def close(session: Session, act: Act, experiment_id: str, version: str, status: Status) -> None:
    """A challenger leaves with `status`, as its version does."""
    row = session.get_one(ExperimentArm, (experiment_id, version))
    row.status, row.reason, row.ended_at = status.value, act.reason, act.now
    session.add(row)
    versions.transition(session, version, status, reason=act.reason, now=act.now)
