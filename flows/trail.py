"""What the flows write into the audit log, in the transaction of what they do."""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session

from flows.context import Context
from registry import acts, audit, runs
from registry.models import RetrainRun

REAPER = "flow:reaper"
DECIDING_PARTS = ("training", "curation", "triggers", "experiment", "gate")
"""Parts of the settings that decide what is learned and what serves; none holds a secret."""


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


def settings_in_force(context: Context, *, actor: str) -> bool:
    """Tell what decisions are made by, unless the log's last word on it is the same.

    What is told is what differs from the defaults, by part. Whether there was something new.
    """
    told = {
        part: getattr(context.settings, part).model_dump(mode="json", exclude_defaults=True)
        for part in DECIDING_PARTS
    }
    with context.database.write() as session:
        last = audit.entries(session, limit=1, action="use_settings")
        if last and last[0].details["settings"] == told:
            return False
        acts.record(
            session,
            context.act(actor, "the installation was started with them"),
            action="use_settings",
            subject="installation",
            details={"settings": told},
        )
    return True
