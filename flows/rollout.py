"""When a version that passed the gate meets people: at once, after a cool-down, or never."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from registry import deployment, experiments, holdback, versions
from registry.deployment import Act
from registry.models import Experiment, ModelVersion
from registry.settings_decisions import ExperimentSettings
from registry.versions import Status


def obstacle(
    session: Session, *, workload: str, settings: ExperimentSettings, now: datetime
) -> str | None:
    """Why no trial can start now; None where it can. A hold-back is no obstacle: it ends."""
    running = experiments.running(session, workload=workload)
    if running is not None and running.kind != holdback.KIND:
        return f"'{running.challenger}' is on trial"
    last = session.exec(
        select(Experiment)
        .where(
            Experiment.workload == workload,
            Experiment.status == Status.ROLLED_BACK.value,
            col(Experiment.ended_at).is_not(None),
        )
        .order_by(col(Experiment.ended_at).desc())
        .limit(1)
    ).first()
    if last is None or last.ended_at is None:
        return None
    free_at = last.ended_at + timedelta(hours=settings.retry_hours)
    if now >= free_at:
        return None
    return f"the last one was rolled back: the next is tried from {free_at:%Y-%m-%d %H:%M} UTC on"


def begin(
    session: Session, act: Act, *, workload: str, version: str, settings: ExperimentSettings
) -> Experiment:
    """Put a version on the first step of the plan."""
    return experiments.start(
        session,
        act,
        workload=workload,
        challenger=version,
        share=settings.steps[0].share,
        settings=settings.model_dump(mode="json"),
    )


def first_step_text(settings: ExperimentSettings) -> str:
    """What happens first, in words."""
    share = settings.steps[0].share
    return f"is tried on {share:.0%} of the traffic" if share else "answers copies, unseen"


def waiting(session: Session, *, workload: str) -> ModelVersion | None:
    """The newest version that passed the gate against what serves now, and was not yet tried."""
    champion = deployment.desired(session, workload).champion
    found = versions.with_status(session, workload=workload, status=Status.REGISTERED)
    if found is None or not found.evaluation.get("gate", {}).get("passed", False):
        return None
    serves_now = None if champion is None else champion.version
    return found if found.parent_version == serves_now else None
