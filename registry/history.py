"""What was in production: when, at what share and why, and who answered a request.

`registry.deployment` writes the periods; here they are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from registry import workloads
from registry.errors import NotFoundError
from registry.models import ModelVersion, ProductionPeriod, UserInteraction


@dataclass(frozen=True)
class InProduction:
    """What one workload served at a moment.

    No `period`: nothing had been decided yet, and the base model answered everything.
    """

    workload: str
    moment: datetime
    period: ProductionPeriod | None


@dataclass(frozen=True)
class Answered:
    """Who answered a request, and what was in production then.

    `version` is null where the base model answered (`role` "default") or a model from
    elsewhere did (`external_model`).
    """

    interaction_id: str
    workload: str
    created_at: datetime
    source: str
    role: str
    version: str | None
    external_model: str | None
    adapter_digest: str | None
    training_dataset_id: str | None
    experiment_id: str | None
    production: InProduction


def periods(
    session: Session,
    *,
    workload: str,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int | None = None,
) -> Sequence[ProductionPeriod]:
    """The periods that touch [since, until), newest first; those before a generation."""
    query = (
        select(ProductionPeriod)
        .where(ProductionPeriod.workload == workload)
        .order_by(col(ProductionPeriod.generation).desc())  # a clock may be set back
    )
    if until is not None:
        query = query.where(col(ProductionPeriod.from_at) < until)
    if since is not None:
        ended = col(ProductionPeriod.to_at)
        query = query.where(ended.is_(None) | (ended > since))
    if before is not None:
        query = query.where(col(ProductionPeriod.generation) < before)
    return session.exec(query if limit is None else query.limit(limit)).all()


def at(session: Session, moment: datetime, *, workload: str) -> InProduction:
    """What a workload served at a moment. Raises `NotFoundError` where there is no such workload.

    Of changes at one moment the last one holds.
    """
    workloads.expect(session, workload)
    found = session.exec(
        select(ProductionPeriod)
        .where(ProductionPeriod.workload == workload, col(ProductionPeriod.from_at) <= moment)
        .order_by(col(ProductionPeriod.from_at).desc(), col(ProductionPeriod.generation).desc())
        .limit(1)
    ).first()
    return InProduction(workload, moment, found)


def answered(session: Session, interaction_id: str) -> Answered:
    """Who answered a request. Raises `NotFoundError`."""
    row = session.get(UserInteraction, interaction_id)
    if row is None:
        raise NotFoundError(
            f"no interaction '{interaction_id}': it was never logged here, or was erased"
        )
    version = None if row.model_version is None else session.get(ModelVersion, row.model_version)
    return Answered(
        interaction_id=row.id,
        workload=row.workload,
        created_at=row.created_at,
        source=row.source,
        role=row.role,
        version=row.model_version,
        external_model=row.external_model,
        adapter_digest=None if version is None else version.adapter_digest,
        training_dataset_id=None if version is None else version.training_dataset_id,
        experiment_id=row.experiment_id,
        production=at(session, row.created_at, workload=row.workload),
    )
