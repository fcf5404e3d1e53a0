"""What people do to a workload by hand: promote a version, or take one back.

Each function is one step inside the caller's transaction.
"""

from sqlmodel import Session

from registry import arms, deployment, experiments, holdback, versions
from registry.deployment import Act
from registry.errors import ConflictError, NotFoundError
from registry.models import Experiment
from registry.versions import Status


def promote(session: Session, act: Act, *, workload: str, version: str | None) -> None:
    """Make a version champion now; None is the challenger on trial.

    Raises `NotFoundError`, or `ConflictError` where the version cannot, belongs to another
    workload, another one is on trial, or several are and none is named.
    """
    running = experiments.running(session, workload=workload)
    if running is not None and running.kind == holdback.KIND:
        running = None
    if running is not None and (version is None or version in arms.running(session, running)):
        experiments.promote(session, act, experiment_id=running.id, version=version)
    elif version is None:
        raise ConflictError(f"workload '{workload}' has no challenger: name a version")
    else:
        _check_workload(session, version, workload)
        experiments.deploy(session, act, workload=workload, version=version)


def roll_back(session: Session, act: Act, *, workload: str) -> None:
    """End the trial of a challenger; without one, return to the previous champion."""
    running = experiments.running(session, workload=workload)
    if running is not None and running.kind == holdback.KIND:
        holdback.undo(session, act, deployment.lock(session, workload))
    elif running is None:
        experiments.roll_back_champion(session, act, workload=workload)
    else:
        experiments.stop(session, act, experiment_id=running.id, status=Status.ROLLED_BACK)


def running(session: Session, *, workload: str) -> Experiment:
    """The trial that is running. Raises `NotFoundError`."""
    found = experiments.running(session, workload=workload)
    if found is None:
        raise NotFoundError(f"workload '{workload}' has no trial running")
    return found


def _check_workload(session: Session, version: str, workload: str) -> None:
    own = versions.get(session, version).workload
    if own != workload:
        raise ConflictError(f"version '{version}' belongs to workload '{own}', not '{workload}'")
