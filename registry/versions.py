"""Model versions and their lifecycle.

    registered ─▶ rejected
        │ ╲▶ shadow ─▶ challenger ─▶ champion ─▶ retired
        │              ▲    │ ╲▶ rolled_back  ╲▶ rolled_back
        ╰──────────────╯    ╰▶ retired

`retired` and `rolled_back` versions may become champion again, by hand.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import Session, col, select

from registry.errors import ConflictError, NotFoundError
from registry.models import ModelVersion


class Status(StrEnum):
    """Where a version stands; stored in `model_versions.deployment_status`."""

    REGISTERED = "registered"
    REJECTED = "rejected"
    SHADOW = "shadow"
    CHALLENGER = "challenger"
    CHAMPION = "champion"
    RETIRED = "retired"
    ROLLED_BACK = "rolled_back"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.REGISTERED: frozenset(
        {
            Status.REJECTED,
            Status.SHADOW,
            Status.CHALLENGER,
            Status.CHAMPION,
            Status.RETIRED,
        }
    ),
    Status.REJECTED: frozenset(),
    Status.SHADOW: frozenset({Status.CHALLENGER, Status.RETIRED, Status.ROLLED_BACK}),
    Status.CHALLENGER: frozenset({Status.CHAMPION, Status.RETIRED, Status.ROLLED_BACK}),
    Status.CHAMPION: frozenset({Status.RETIRED, Status.ROLLED_BACK}),
    Status.RETIRED: frozenset({Status.CHAMPION, Status.CHALLENGER}),
    Status.ROLLED_BACK: frozenset({Status.CHAMPION}),
}

SERVING = frozenset({Status.SHADOW, Status.CHALLENGER, Status.CHAMPION})
"""Where a version needs its adapter."""


def check_transition(version: str, current: Status, wanted: Status) -> None:
    """Raise `ConflictError` unless a version may go from `current` to `wanted`."""
    if wanted not in TRANSITIONS[current]:
        allowed = ", ".join(sorted(TRANSITIONS[current])) or "nothing"
        raise ConflictError(
            f"version '{version}' is {current} and cannot become {wanted}; it can become {allowed}"
        )


def version_name(base_model: str, created_at: datetime) -> str:
    """The seeds' form: `Qwen/Qwen2-7B-ft-1700000000`."""
    return f"{base_model}-ft-{int(created_at.timestamp())}"


def register(
    session: Session,
    *,
    version: str,
    workload: str,
    base_model: str,
    adapter_digest: str,
    recipe: str,
    now: datetime,
    objective: str = "sft",
    parent_version: str | None = None,
    training_dataset_id: str | None = None,
    performance_metrics: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
) -> ModelVersion:
    """Add a version in state `registered`. A name already taken gets `-2`, `-3`, … appended."""
    row = ModelVersion(
        version=_free_name(session, version),
        workload=workload,
        base_model=base_model,
        parent_version=parent_version,
        training_dataset_id=training_dataset_id,
        objective=objective,
        recipe=recipe,
        adapter_digest=adapter_digest,
        performance_metrics=performance_metrics or {},
        evaluation=evaluation or {},
        created_at=now,
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, version: str) -> ModelVersion:
    """The version of that name. Raises `NotFoundError`."""
    row = session.get(ModelVersion, version)
    if row is None:
        raise NotFoundError(f"no model version '{version}'")
    return row


def list_versions(
    session: Session,
    *,
    workload: str,
    limit: int = 100,
    before: tuple[datetime, str] | None = None,
) -> Sequence[ModelVersion]:
    """The versions of a workload, newest first; those before a moment and version."""
    created_at, version = col(ModelVersion.created_at), col(ModelVersion.version)
    query = select(ModelVersion).where(ModelVersion.workload == workload)
    if before is not None:
        earlier = created_at < before[0]
        query = query.where(earlier | ((created_at == before[0]) & (version < before[1])))
    return session.exec(query.order_by(created_at.desc(), version.desc()).limit(limit)).all()


def transition(
    session: Session, version: str, wanted: Status, *, reason: str, now: datetime
) -> ModelVersion:
    """Move a version to `wanted`. Raises `NotFoundError` or `ConflictError`."""
    row = _held(session, version)
    check_transition(version, Status(row.deployment_status), wanted)
    if row.adapter_deleted_at is not None and wanted in SERVING:
        raise ConflictError(
            f"version '{version}' cannot become {wanted}: its adapter was deleted at "
            f"{row.adapter_deleted_at:%Y-%m-%d %H:%M} UTC"
        )
    row.deployment_status = wanted
    row.status_reason = reason
    if wanted in (Status.CHALLENGER, Status.CHAMPION):
        row.deployed_at = now
    session.add(row)
    session.flush()
    return row


def _held(session: Session, version: str) -> ModelVersion:
    """The version as it is now: garbage may have been collected since it was read first."""
    row = session.exec(
        select(ModelVersion)
        .where(ModelVersion.version == version)
        .with_for_update(key_share=True)  # rows that only name the version are not held up
        .execution_options(populate_existing=True)
    ).first()
    return get(session, version) if row is None else row


def _free_name(session: Session, wanted: str) -> str:
    name, number = wanted, 1
    while session.get(ModelVersion, name) is not None:
        number += 1
        name = f"{wanted}-{number}"
    return name
