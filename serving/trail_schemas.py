"""Bodies of the routes that tell the record: history, lineage, audit log."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from registry.history import Answered, InProduction
from registry.models import AuditEntry, ProductionPeriod


class Period(BaseModel):
    """What one workload served from a moment on."""

    generation: int
    version: str | None
    """The champion; null: the base model."""
    challenger: str | None
    rivals: Sequence[str]
    """Those on trial beside the challenger."""
    share: float
    """The challenger's share of the traffic; with rivals, what they all divide equally."""
    action: str | None
    """The change that began it, such as promote or set_share."""
    experiment_id: str | None
    reason: str
    actor: str
    from_at: datetime
    to_at: datetime | None
    """Null: it still lasts."""


class HistoryPage(BaseModel):
    """A page of the production history, newest first."""

    workload: str
    periods: Sequence[Period]
    next: str | None


class MomentResponse(BaseModel):
    """What one workload served at a moment."""

    workload: str
    moment: datetime
    period: Period | None
    """Null: nothing had been decided yet, and the base model answered."""


class AnsweredResponse(BaseModel):
    """Who answered a request, and what was in production then."""

    interaction_id: str
    workload: str
    created_at: datetime
    source: str
    role: str
    version: str | None
    """Null: the base model, or another system's (`external_model`)."""
    external_model: str | None
    adapter_digest: str | None
    training_dataset_id: str | None
    experiment_id: str | None
    production: MomentResponse


class DatasetItemRow(BaseModel):
    """A sample of a dataset, and the interaction that it came from."""

    sample_id: str
    interaction_id: str
    split: str


class DatasetItemsPage(BaseModel):
    """A page of a dataset's samples."""

    items: Sequence[DatasetItemRow]
    next: str | None


class AuditRow(BaseModel):
    """One act or decision."""

    sequence: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: dict[str, Any]
    digest: str


class AuditPage(BaseModel):
    """A page of the audit log, newest first."""

    entries: Sequence[AuditRow]
    next: int | None
    """`before` of the next page."""


def period(row: ProductionPeriod) -> Period:
    """A period as it is told."""
    return Period.model_validate({**row.model_dump(), "rivals": row.rivals or ()})


def moment(found: InProduction) -> MomentResponse:
    """What was served at a moment, as it is told."""
    return MomentResponse(
        workload=found.workload,
        moment=found.moment,
        period=None if found.period is None else period(found.period),
    )


def answered(found: Answered) -> AnsweredResponse:
    """Who answered, as it is told."""
    told = {name: getattr(found, name) for name in AnsweredResponse.model_fields}
    return AnsweredResponse(**{**told, "production": moment(found.production)})


def audit_row(entry: AuditEntry) -> AuditRow:
    """An entry as it is told."""
    return AuditRow.model_validate(entry, from_attributes=True)
