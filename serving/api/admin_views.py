"""What administrators and reviewers look at: status, versions, training-data candidates."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from registry import deployment, experiments, runs, texts, versions
from registry.candidates import candidates
from registry.clock import utc_now
from registry.models import ModelVersion, ReplicaStatus, UserInteraction
from registry.statistics import statistics
from serving.access.auth import AdminDep, ReviewerDep
from serving.admin_schemas import (
    Candidate,
    CandidatesResponse,
    DecisionItem,
    LoopStatus,
    ReplicaItem,
    StatusResponse,
    UsageStats,
    Version,
    VersionsResponse,
)
from serving.api import paging
from serving.api.service import Service, ServiceDep
from serving.schemas import MAX_NAME_CHARS, Storable

router = APIRouter(prefix="/api/admin", tags=["Administration"])
NUM_DECISIONS = 5
Workload = Annotated[
    str | None, Query(max_length=MAX_NAME_CHARS, description="Unset: the default.")
]


@router.get("/status")
async def status(
    service: ServiceDep, _caller: AdminDep, workload: Workload = None
) -> StatusResponse:
    """Usage, trainings, champion, challenger, the last decisions, and who follows them."""
    return await asyncio.to_thread(_status, service, service.workload(workload))


@router.get("/versions")
async def list_versions(
    service: ServiceDep,
    _caller: AdminDep,
    workload: Workload = None,
    limit: paging.Limit = paging.DEFAULT_LIMIT,
    cursor: str | None = None,
) -> VersionsResponse:
    """The versions of a workload, newest first."""
    name, limit = service.workload(workload), min(limit, paging.MAX_LIMIT)
    before = paging.decode(cursor) if cursor is not None else None

    def read() -> list[ModelVersion]:
        with service.database.read() as session:
            return list(
                versions.list_versions(session, workload=name, limit=limit + 1, before=before)
            )

    found = await asyncio.to_thread(read)
    page = found[:limit]
    more = len(found) > limit
    return VersionsResponse(
        versions=[_version(row) for row in page],
        next=paging.encode(page[-1].created_at, page[-1].version) if more else None,
    )


# Of type "path", since a version may hold slashes.
@router.get("/versions/{version:path}")
async def get_version(version: Storable, service: ServiceDep, _caller: AdminDep) -> Version:
    """One version, with what it scored."""

    def read() -> ModelVersion:
        with service.database.read() as session:
            return versions.get(session, version)

    return _version(await asyncio.to_thread(read))


@router.get("/training-data-candidates")
async def training_data_candidates(
    service: ServiceDep,
    _caller: ReviewerDep,
    workload: Workload = None,
    limit: paging.Limit = paging.DEFAULT_LIMIT,
    cursor: str | None = None,
) -> CandidatesResponse:
    """The answers that curation would accept, latest feedback first."""
    name, limit = service.workload(workload), min(limit, paging.MAX_LIMIT)
    before = paging.decode(cursor) if cursor is not None else None
    curation = service.settings.curation

    def read() -> list[tuple[UserInteraction, bool]]:
        with service.database.read() as session:
            found = candidates(
                session,
                workload=name,
                min_quality=curation.min_quality,
                min_quality_if_liked=curation.min_quality_if_liked,
                min_feedback=curation.min_feedback,
                limit=limit + 1,
                before=before,
            )
            rows = list(found)
            for row, _ in rows:
                texts.reveal(row, service.keyring)
            return rows

    found = await asyncio.to_thread(read)
    page = found[:limit]
    last = page[-1][0] if len(found) > limit else None
    return CandidatesResponse(
        candidates=[_candidate(row, is_curated) for row, is_curated in page],
        next=paging.encode(last.feedback_at, last.id) if last and last.feedback_at else None,
    )


def _status(service: Service, workload: str) -> StatusResponse:
    with service.database.read() as session:
        usage = statistics(session, workload=workload)
        state = deployment.desired(session, workload)
        running = runs.running(session, workload=workload)
        last = runs.last(session, workload=workload, statuses=tuple(sorted(runs.ENDED)))
        looks = experiments.last_decisions(session, workload=workload, limit=NUM_DECISIONS)
        num_retrains = runs.count(session, workload=workload)
        # Reports carry the machine's time.
        replicas = deployment.replicas(session, now=utc_now())
    base_model = service.settings.training.base_model
    return StatusResponse(
        workload=workload,
        usage_stats=UsageStats(
            total=usage.total,
            feedback_rate=usage.feedback_rate,
            avg_quality_score=usage.avg_quality,
            error_rate=usage.error_rate,
        ),
        status=LoopStatus(
            champion_model=base_model if state.champion is None else state.champion.version,
            challenger_model=None if state.challenger is None else state.challenger.version,
            challenger_share=state.share,
            rival_models=[live.version for live in state.rivals],
            experiment_id=state.experiment_id,
            paused=state.experiment_id is not None and state.share == 0 and state.mode == "trial",
            generation=state.generation,
            total_retrains=num_retrains,
            training_since=None if running is None else running.started_at,
            last_training=None if last is None else f"{last.status}: {last.reason}",
        ),
        decisions=[
            DecisionItem(
                decided_at=look.decided_at, action=look.action, reasons=look.reasons["reasons"]
            )
            for look in looks
        ],
        replicas=[_replica(row, workload) for row in replicas],
    )


def _replica(row: ReplicaStatus, workload: str) -> ReplicaItem:
    return ReplicaItem(
        replica_id=row.replica_id,
        kind=row.kind,
        generation=row.generations.get(workload),
        versions=sorted(row.versions),
        refused=row.refused,
        seen_at=row.seen_at,
    )


def _version(row: ModelVersion) -> Version:
    return Version.model_validate(row, from_attributes=True)


def _candidate(row: UserInteraction, is_curated: bool) -> Candidate:
    fields = {name: getattr(row, name, None) for name in Candidate.model_fields}
    return Candidate.model_validate({**fields, "interaction_id": row.id, "is_curated": is_curated})
