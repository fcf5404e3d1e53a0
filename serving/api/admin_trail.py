"""The record: what was in production when, where things came from, who did what."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query
from sqlmodel import Session, SQLModel

from registry import ancestry, audit, history, lineage, people
from registry.ancestry import DatasetLineage, InteractionLineage, VersionLineage
from serving import trail_schemas as schemas
from serving.access.auth import AdminDep
from serving.api import paging
from serving.api.paths import INTERACTION
from serving.api.service import Service, ServiceDep
from serving.problems import ProblemError
from serving.schemas import MAX_NAME_CHARS, Storable

router = APIRouter(prefix="/api/admin", tags=["Administration"])
T = TypeVar("T")

Name = Annotated[Storable | None, Query(max_length=MAX_NAME_CHARS)]
Workload = Annotated[
    str | None, Query(max_length=MAX_NAME_CHARS, description="Unset: the default.")
]
Moment = Annotated[datetime | None, Query(description="ISO 8601; without a zone, UTC.")]


@router.get("/history")
async def production_history(
    service: ServiceDep,
    _caller: AdminDep,
    workload: Workload = None,
    since: Moment = None,
    until: Moment = None,
    limit: paging.Limit = paging.DEFAULT_LIMIT,
    cursor: str | None = None,
) -> schemas.HistoryPage:
    """Which version was in production, at what share, from when to when and why; newest first."""
    name, limit = service.workload(workload), min(limit, paging.MAX_LIMIT)
    before = None if cursor is None else _generation(cursor)
    rows = await _read(
        service,
        lambda session: history.periods(
            session,
            workload=name,
            since=_aware(since),
            until=_aware(until),
            before=before,
            limit=limit + 1,
        ),
        named=lambda rows: rows,
    )
    page = rows[:limit]
    more = len(rows) > limit
    return schemas.HistoryPage(
        workload=name,
        periods=[schemas.period(row) for row in page],
        next=paging.encode(page[-1].from_at, str(page[-1].generation)) if more else None,
    )


@router.get("/history/at")
async def in_production_at(
    service: ServiceDep, _caller: AdminDep, moment: datetime, workload: Workload = None
) -> schemas.MomentResponse:
    """What a workload served at a moment."""
    name, at = service.workload(workload), _aware(moment) or moment
    return schemas.moment(
        await _read(
            service,
            lambda session: history.at(session, at, workload=name),
            named=lambda found: [found.period],
        )
    )


@router.get(f"/interactions/{INTERACTION}/version")
async def version_of_interaction(
    interaction_id: Storable, service: ServiceDep, _caller: AdminDep
) -> schemas.AnsweredResponse:
    """Which version answered a request, and what was in production then."""
    return schemas.answered(
        await _read(
            service,
            lambda session: history.answered(session, interaction_id),
            named=lambda found: [found.production.period],
        )
    )


# Of type "path", since a version may hold slashes.
@router.get("/lineage/versions/{version:path}")
async def lineage_of_version(
    version: Storable, service: ServiceDep, _caller: AdminDep
) -> VersionLineage:
    """A version's parents and datasets, and the versions that went on from it."""
    return await _read(service, lambda session: ancestry.of_version(session, version))


@router.get("/lineage/datasets/{dataset_id}")
async def lineage_of_dataset(
    dataset_id: Storable, service: ServiceDep, _caller: AdminDep
) -> DatasetLineage:
    """A dataset, and the versions that learned from it."""
    return await _read(service, lambda session: ancestry.of_dataset(session, dataset_id))


@router.get("/lineage/datasets/{dataset_id}/items")
async def items_of_dataset(
    dataset_id: Storable,
    service: ServiceDep,
    _caller: AdminDep,
    limit: paging.Limit = paging.DEFAULT_LIMIT,
    after: Name = None,
) -> schemas.DatasetItemsPage:
    """The samples of a dataset and the interactions they came from, page by page."""
    limit = min(limit, paging.MAX_LIMIT)
    rows = await _read(
        service,
        lambda session: lineage.interactions_in(session, dataset_id, limit=limit + 1, after=after),
    )
    page = [
        schemas.DatasetItemRow(sample_id=sample, interaction_id=interaction, split=split)
        for sample, interaction, split in rows[:limit]
    ]
    return schemas.DatasetItemsPage(
        items=page, next=page[-1].sample_id if len(rows) > limit else None
    )


@router.get(f"/lineage/interactions/{INTERACTION}")
async def lineage_of_interaction(
    interaction_id: Storable, service: ServiceDep, _caller: AdminDep
) -> InteractionLineage:
    """What was curated from an interaction, and the versions that learned from it."""
    return await _read(service, lambda session: ancestry.of_interaction(session, interaction_id))


@router.get("/audit")
async def audit_log(
    service: ServiceDep,
    _caller: AdminDep,
    action: Name = None,
    actor: Name = None,
    subject: Name = None,
    limit: paging.Limit = paging.DEFAULT_LIMIT,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> schemas.AuditPage:
    """Who did what, and why; newest first."""
    limit = min(limit, paging.MAX_LIMIT)
    rows = await _read(
        service,
        lambda session: audit.entries(
            session,
            limit=limit + 1,
            before=before,
            action=action,
            actors=None if actor is None else people.written_as(actor, service.keyring),
            subject=subject,
        ),
        named=lambda rows: rows,
    )
    page = rows[:limit]
    return schemas.AuditPage(
        entries=[schemas.audit_row(row) for row in page],
        next=page[-1].sequence if len(rows) > limit else None,
    )


async def _read(
    service: Service,
    read: Callable[[Session], T],
    *,
    named: Callable[[T], Iterable[SQLModel | None]] = lambda _found: (),
) -> T:
    """What `read` finds; the rows of `named` tell the names of who acted."""

    def carry_out() -> T:
        with service.database.read() as session:
            found = read(session)
            rows = [row for row in named(found) if row is not None]
            people.reveal(session, rows, service.keyring)
            return found

    return await asyncio.to_thread(carry_out)


def _aware(moment: datetime | None) -> datetime | None:
    """The moment in UTC. Raises `ProblemError` 422 where it has none."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ProblemError(422, f"{moment.isoformat()} is no moment in UTC") from error


def _generation(cursor: str) -> int:
    """The generation in a cursor. Raises `ProblemError` 422."""
    _, text = paging.decode(cursor)
    if not text.isdecimal() or len(text) > 9:
        raise ProblemError(
            422, "cursor: pass back what 'next' of the page before said", field="cursor"
        )
    return int(text)
