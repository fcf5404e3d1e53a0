"""GET /metrics: what Prometheus asks for."""

import asyncio

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from serving.access.auth import ReviewerDep
from serving.api.service import ServiceDep
from serving.metrics import CONTENT_TYPE

router = APIRouter(tags=["Probes"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: ServiceDep, _caller: ReviewerDep) -> Response:
    """The numbers of all processes on this machine."""
    for workload, view in service.state.views.items():
        service.metrics.share(workload, view.share)
    text = await asyncio.to_thread(service.metrics.text)
    return Response(text, media_type=CONTENT_TYPE)
