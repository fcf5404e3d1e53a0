"""What the flows write into the audit log, in the transaction of what they do."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session

from flows.context import Context
from registry import acts, runs
from registry.models import RetrainRun

REAPER = "flow:reaper"


def training_started(
    context: Context, session: Session, run_id: str, *, actor: str, workload: str, trigger: str
) -> None:
    """A training has begun."""
    acts.record(
        session,
        context.act(actor, f"trigger: {trigger}"),
        action="start_training",
        subject=f"training:{run_id}",
        details={"workload": workload},
    )


def training_ended(
    context: Context, session: Session, run_id: str, *, actor: str, status: str, reason: str
) -> None:
    """A training has ended: succeeded, rejected, refused or failed."""
    acts.record(
        session,
        context.act(actor, reason),
        action="end_training",
        subject=f"training:{run_id}",
        details={"status": status},
    )


def reap_trainings(context: Context, session: Session) -> Sequence[RetrainRun]:
    """Mark trainings whose process died as failed; those it has marked."""
    stale_after_s = context.settings.training.stale_after_s
    dead = runs.reap(session, now=context.clock(), stale_after_s=stale_after_s)
    for run in dead:
        training_ended(
            context, session, run.id, actor=REAPER, status=run.status, reason=run.reason or ""
        )
    return dead
