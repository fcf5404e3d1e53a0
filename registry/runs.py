"""Retraining runs: at most one at a time per workload, and none that is dead but "running"."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from registry.errors import BusyError, ConflictError, NotFoundError
from registry.models import RetrainRun, TriggerCheck

ENDED = frozenset({"succeeded", "rejected", "refused", "failed"})


def start(
    session: Session,
    *,
    run_id: str,
    workload: str,
    trigger: str,
    now: datetime,
    flow_run_id: str | None = None,
) -> RetrainRun:
    """Open a run. Raises `BusyError` while another one of the workload is running."""
    run = RetrainRun(
        id=run_id,
        workload=workload,
        trigger=trigger,
        flow_run_id=flow_run_id,
        heartbeat_at=now,
        started_at=now,
    )
    try:
        with session.begin_nested():
            session.add(run)
    except IntegrityError as error:
        other = running(session, workload=workload)
        if other is None:
            raise
        raise BusyError(
            f"workload '{workload}' is already training (run {other.id}, "
            f"since {other.started_at:%Y-%m-%d %H:%M} UTC)"
        ) from error
    return run


def heartbeat(session: Session, run_id: str, *, now: datetime) -> None:
    """Say that the run is alive."""
    run = get(session, run_id)
    run.heartbeat_at = now
    session.add(run)


def finish(
    session: Session,
    run_id: str,
    *,
    status: str,
    reason: str,
    now: datetime,
    dataset_id: str | None = None,
    version: str | None = None,
) -> None:
    """Close a run as succeeded, rejected (by the gate), refused (too little data) or failed.

    Raises `ConflictError` where it is closed already: a reaped run cannot come back to life.
    """
    if status not in ENDED:
        raise ValueError(f"'{status}' does not end a run")
    run = lock(session, run_id)
    if run.status != "running":
        raise ConflictError(f"training run {run_id} has already {run.status}: {run.reason}")
    run.status, run.reason, run.ended_at = status, reason, now
    run.dataset_id, run.version = dataset_id, version
    session.add(run)
    session.flush()


def get(session: Session, run_id: str) -> RetrainRun:
    """The run of that id. Raises `NotFoundError`."""
    run = session.get(RetrainRun, run_id)
    if run is None:
        raise NotFoundError(f"no training run '{run_id}'")
    return run


def lock(session: Session, run_id: str) -> RetrainRun:
    """The run of that id, held until the transaction ends. Raises `NotFoundError`.

    Whoever changes more than the run holds it first, so that none waits for another in turn.
    """
    run = session.exec(
        select(RetrainRun)
        .where(RetrainRun.id == run_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).first()
    if run is None:
        raise NotFoundError(f"no training run '{run_id}'")
    return run


def running(session: Session, *, workload: str) -> RetrainRun | None:
    """The workload's running run, if any."""
    return session.exec(
        select(RetrainRun).where(RetrainRun.workload == workload, RetrainRun.status == "running")
    ).first()


def reap(session: Session, *, now: datetime, stale_after_s: float) -> Sequence[RetrainRun]:
    """Mark every running run without a heartbeat for `stale_after_s` as failed."""
    line = now - timedelta(seconds=stale_after_s)
    dead = session.exec(
        select(RetrainRun).where(
            RetrainRun.status == "running", col(RetrainRun.heartbeat_at) < line
        )
    ).all()
    for run in dead:
        silent_s = (now - run.heartbeat_at).total_seconds()
        finish(
            session,
            run.id,
            status="failed",
            reason=f"its process died: no heartbeat for {silent_s:.0f} s",
            now=now,
        )
    return dead


def last(
    session: Session,
    *,
    workload: str,
    statuses: Sequence[str] = ("succeeded", "rejected"),
) -> RetrainRun | None:
    """The latest run of a workload that ended in one of `statuses`."""
    return session.exec(
        select(RetrainRun)
        .where(RetrainRun.workload == workload, col(RetrainRun.status).in_(statuses))
        .order_by(col(RetrainRun.started_at).desc())
    ).first()


def count(session: Session, *, workload: str) -> int:
    """Runs of a workload that trained a version."""
    return len(
        session.exec(
            select(RetrainRun.id).where(
                RetrainRun.workload == workload,
                col(RetrainRun.status).in_(("succeeded", "rejected")),
            )
        ).all()
    )


def last_checks(session: Session, *, workload: str, limit: int) -> Sequence[TriggerCheck]:
    """The workload's latest looks at the triggers, newest first."""
    return session.exec(
        select(TriggerCheck)
        .where(TriggerCheck.workload == workload)
        .order_by(col(TriggerCheck.checked_at).desc(), col(TriggerCheck.id).desc())
        .limit(limit)
    ).all()


def record_check(
    session: Session,
    *,
    check_id: str,
    workload: str,
    trigger: str | None,
    reason: str,
    facts: dict[str, object],
    now: datetime,
) -> None:
    """Keep one look at the triggers with the numbers it saw."""
    session.add(
        TriggerCheck(
            id=check_id,
            workload=workload,
            fired=trigger is not None,
            trigger=trigger,
            reason=reason,
            facts=facts,
            checked_at=now,
        )
    )
    session.flush()
