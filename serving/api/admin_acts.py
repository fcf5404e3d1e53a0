"""Promote, roll back, and steer the running trial: changes of the desired state, audited."""

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Request
from sqlmodel import Session

from registry import by_hand, deployment, experiments, versions
from registry.deployment import Act
from serving.access.auth import AdminDep, Principal
from serving.admin_schemas import ActRequest, DeploymentResponse, PromoteRequest, ShareRequest
from serving.api.body import read_body, read_optional
from serving.api.service import Service, ServiceDep
from serving.schemas import Storable, json_schema

router = APIRouter(prefix="/api/admin", tags=["Administration"])
Change = Callable[[Session, Act, str], None]
"""Changes a workload inside a transaction."""


# Of type "path", since a version may hold slashes.
@router.post(
    "/versions/{version:path}/promote",
    openapi_extra=json_schema(PromoteRequest, required=False),
)
async def promote(
    version: Storable, request: Request, service: ServiceDep, caller: AdminDep
) -> DeploymentResponse:
    """Make a version the champion of its workload now; a trial of it ends promoted."""
    body = await read_optional(request, PromoteRequest, service.limits)
    workload = await asyncio.to_thread(_workload_of, service, version)

    def change(session: Session, act: Act, workload: str) -> None:
        by_hand.promote(session, act, workload=workload, version=version)

    return await _carry_out(service, caller, body, workload, change)


@router.post("/rollback", openapi_extra=json_schema(ActRequest, required=False))
async def rollback(request: Request, service: ServiceDep, caller: AdminDep) -> DeploymentResponse:
    """End the trial of a challenger; without one, return to the previous champion."""
    body = await read_optional(request, ActRequest, service.limits)

    def change(session: Session, act: Act, workload: str) -> None:
        by_hand.roll_back(session, act, workload=workload)

    workload = service.workload(body.workload)
    return await _carry_out(service, caller, body, workload, change)


@router.put("/experiment/share", openapi_extra=json_schema(ShareRequest))
async def set_share(request: Request, service: ServiceDep, caller: AdminDep) -> DeploymentResponse:
    """Give the challenger another share of the traffic; a paused trial goes on with it."""
    body = await read_body(request, ShareRequest, service.limits)

    def change(session: Session, act: Act, workload: str) -> None:
        running = by_hand.running(session, workload=workload)
        experiments.ramp(session, act, experiment_id=running.id, share=body.share)

    workload = service.workload(body.workload)
    return await _carry_out(service, caller, body, workload, change)


@router.post("/experiment/pause", openapi_extra=json_schema(ActRequest, required=False))
async def pause(request: Request, service: ServiceDep, caller: AdminDep) -> DeploymentResponse:
    """Send the challenger no traffic for now; nothing counts meanwhile."""
    body = await read_optional(request, ActRequest, service.limits)

    def change(session: Session, act: Act, workload: str) -> None:
        running = by_hand.running(session, workload=workload)
        experiments.pause(session, act, experiment_id=running.id)

    workload = service.workload(body.workload)
    return await _carry_out(service, caller, body, workload, change)


@router.post("/experiment/resume", openapi_extra=json_schema(ActRequest, required=False))
async def resume(request: Request, service: ServiceDep, caller: AdminDep) -> DeploymentResponse:
    """Go on with a paused trial at the share that it had."""
    body = await read_optional(request, ActRequest, service.limits)

    def change(session: Session, act: Act, workload: str) -> None:
        running = by_hand.running(session, workload=workload)
        experiments.resume(session, act, experiment_id=running.id)

    workload = service.workload(body.workload)
    return await _carry_out(service, caller, body, workload, change)


@router.post("/experiment/freeze", openapi_extra=json_schema(ActRequest, required=False))
async def freeze(request: Request, service: ServiceDep, caller: AdminDep) -> DeploymentResponse:
    """Leave the trial as it is until told otherwise: only a guardrail can end it."""
    return await _freeze(request, service, caller, frozen=True)


@router.post("/experiment/unfreeze", openapi_extra=json_schema(ActRequest, required=False))
async def unfreeze(request: Request, service: ServiceDep, caller: AdminDep) -> DeploymentResponse:
    """Let the numbers decide again."""
    return await _freeze(request, service, caller, frozen=False)


async def _freeze(
    request: Request, service: Service, caller: AdminDep, *, frozen: bool
) -> DeploymentResponse:
    body = await read_optional(request, ActRequest, service.limits)

    def change(session: Session, act: Act, workload: str) -> None:
        running = by_hand.running(session, workload=workload)
        experiments.freeze(session, act, experiment_id=running.id, frozen=frozen)

    workload = service.workload(body.workload)
    return await _carry_out(service, caller, body, workload, change)


def _workload_of(service: Service, version: str) -> str:
    with service.database.read() as session:
        return versions.get(session, version).workload


async def _carry_out(
    service: Service,
    caller: Principal,
    body: ActRequest | PromoteRequest,
    workload: str,
    change: Change,
) -> DeploymentResponse:
    act = service.act(caller, body.reason)
    return await asyncio.to_thread(_transact, service, act, workload, change, body.generation)


def _transact(
    service: Service, act: Act, workload: str, change: Change, generation: int | None
) -> DeploymentResponse:
    with service.database.write() as session:
        deployment.expect(session, workload, generation=generation)
        change(session, act, workload)
        state = deployment.desired(session, workload)
    champion = "the base model" if state.champion is None else state.champion.version
    return DeploymentResponse(
        status="success",
        message=f"champion: {champion} (generation {state.generation})",
        workload=workload,
        generation=state.generation,
        champion=None if state.champion is None else state.champion.version,
        challenger=None if state.challenger is None else state.challenger.version,
        share=state.share,
        experiment_id=state.experiment_id,
    )
