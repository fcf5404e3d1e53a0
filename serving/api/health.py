"""GET /healthz: the process runs. GET /readyz: it can answer, and what it serves."""

from typing import Any

from fastapi import APIRouter

from registry.deployment import DesiredState
from serving.api.service import ServiceDep
from serving.problems import ProblemError

router = APIRouter(tags=["Probes"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the router runs at all."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
async def readyz(service: ServiceDep) -> dict[str, Any]:
    """Whether an answer can be given and written down; the state that is served.

    `recording` says where answers go: "database", or "spool" while that is away.
    """
    view = service.state.current()
    if view is None or not (service.state.reports or service.state.is_cut_off):
        raise ProblemError(503, "no model replica has reported yet", headers={"Retry-After": "1"})
    service.recorder.require_room()
    return {
        "status": "ready",
        "state": state_name(view),
        "generation": view.generation,
        "champion": view.champion.version if view.champion else None,
        "challenger": view.challenger.version if view.challenger else None,
        "share": view.share,
        "recording": service.recorder.into,
        "refused": {
            version: reason
            for report in service.state.reports
            for version, reason in report.refused.items()
        },
    }


def state_name(view: DesiredState) -> str:
    """NoChampion, Champion or Testing."""
    if view.challenger is not None:
        return "Testing"
    return "NoChampion" if view.champion is None else "Champion"
