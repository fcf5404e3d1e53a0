"""POST /api/admin/curate-training-data, /train-model: start the flows, on Prefect."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from registry import acts
from registry.deployment import Act
from serving.access.auth import AdminDep
from serving.admin_schemas import CurateRequest, StartedResponse, TrainRequest
from serving.api.body import read_optional
from serving.api.service import Service, ServiceDep
from serving.prefect_api import CURATE, RETRAIN
from serving.schemas import json_schema

router = APIRouter(prefix="/api/admin", tags=["Administration"])
TRIGGER = "manual"


@router.post(
    "/curate-training-data",
    response_model=StartedResponse,
    openapi_extra=json_schema(CurateRequest, required=False),
)
async def curate_training_data(
    request: Request, service: ServiceDep, caller: AdminDep
) -> StartedResponse:
    """Have new feedback turned into training data."""
    body = await read_optional(request, CurateRequest, service.limits)
    parameters = {"workload": service.workload(body.workload), "dry_run": body.dry_run}
    return await _start(service, service.act(caller, body.reason), CURATE, parameters)


@router.post(
    "/train-model",
    response_model=StartedResponse,
    openapi_extra=json_schema(TrainRequest, required=False),
)
async def train_model(request: Request, service: ServiceDep, caller: AdminDep) -> StartedResponse:
    """Have a version trained, evaluated and, if it passes the gate, tried."""
    body = await read_optional(request, TrainRequest, service.limits)
    parameters = {
        "workload": service.workload(body.workload),
        "trigger": TRIGGER,
        "force": body.force,
        "dry_run": body.dry_run,
    }
    return await _start(service, service.act(caller, body.reason), RETRAIN, parameters)


async def _start(
    service: Service, act: Act, deployment: str, parameters: dict[str, Any]
) -> StartedResponse:
    def record() -> None:
        with service.database.write() as session:
            acts.record(
                session,
                act,
                action="start_flow",
                subject=f"deployment:{deployment}",
                details=parameters,
            )

    # Before: what cannot be recorded is not started.
    await asyncio.to_thread(record)
    run = await service.prefect.start(deployment, parameters)
    return StartedResponse(
        status="started",
        message=f"{deployment} runs as '{run.name}'",
        flow_run_id=run.id,
        flow_run_url=run.url,
    )
