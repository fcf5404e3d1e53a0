"""When a version that passed the gate meets people: at once, after a cool-down, or never."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from sqlmodel import Session, col, select

from registry import deployment, experiments, holdback
from registry.deployment import Act
from registry.models import Experiment, ModelVersion
from registry.settings_decisions import ExperimentSettings
from registry.versions import Status

CHAMPION_THEN = "champion"
"""In a version's evaluation: who served when its training began; null: the base model."""


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
            Experiment.kind != experiments.ITSELF,
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
    session: Session,
    act: Act,
    *,
    workload: str,
    version: str,
    settings: ExperimentSettings,
    rivals: Sequence[str] = (),
) -> Experiment:
    """Put a version, and `rivals` beside it, on the first step of the plan."""
    return experiments.start(
        session,
        act,
        workload=workload,
        challenger=version,
        rivals=rivals,
        share=settings.steps[0].share,
        settings=settings.model_dump(mode="json"),
    )


def first_step_text(settings: ExperimentSettings) -> str:
    """What happens first, in words."""
    share = settings.steps[0].share
    return f"is tried on {share:.0%} of the traffic" if share else "answers copies, unseen"


def waiting(session: Session, *, workload: str, most: int = 1) -> list[str]:
    """The newest versions that passed the gate while the same served as now, and were not tried.

    Up to `most`, newest first, and none older than one that is none of these.
    """
    champion = deployment.desired(session, workload).champion
    serves_now = None if champion is None else champion.version
    registered = session.exec(
        select(ModelVersion)
        .where(
            ModelVersion.workload == workload,
            ModelVersion.deployment_status == Status.REGISTERED,
        )
        .order_by(col(ModelVersion.created_at).desc())
        .limit(most)
    )
    return [
        row.version
        for row in takewhile(
            lambda row: (
                row.evaluation.get("gate", {}).get("passed", False)
                and row.evaluation.get(CHAMPION_THEN, row.parent_version) == serves_now
            ),
            registered,
        )
    ]
