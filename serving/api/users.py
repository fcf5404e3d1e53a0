"""People's rights: consent, export, erasure. Each is the user's own, or an admin's to exercise."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from registry import privacy
from registry.artifacts import ArtifactStore
from registry.clock import new_id
from registry.user_export import export_user
from serving.access.auth import Principal, PrincipalDep
from serving.api.body import read_body
from serving.api.paths import USER
from serving.api.service import Service, ServiceDep
from serving.erasing import Eraser
from serving.problems import ProblemError
from serving.schemas import MAX_ID_CHARS, json_schema
from serving.user_schemas import EXPORT_DESCRIBED, ConsentRequest, ConsentResponse, ErasureReport

router = APIRouter(prefix="/api/users", tags=["Rights"])
THE_USER = "the user"
"""Who acts for themselves is named nowhere: what is kept of it must not say who it was."""


@router.get(f"/{USER}/export", response_class=StreamingResponse, responses=EXPORT_DESCRIBED)
async def export(user_id: str, service: ServiceDep, caller: PrincipalDep) -> StreamingResponse:
    """Everything that is known of a user, as one JSON document."""
    _check(caller, user_id)
    act = service.act(_unnamed(caller, user_id), "asked for")

    def tell() -> None:
        with service.database.write() as session:
            privacy.tell_export(session, act, user_id)

    await asyncio.to_thread(tell)

    pieces = export_user(service.database, service.keyring, user_id)
    return StreamingResponse(pieces, media_type="application/json")


@router.get(f"/{USER}/consent")
async def get_consent(user_id: str, service: ServiceDep, caller: PrincipalDep) -> ConsentResponse:
    """What a user allows."""
    _check(caller, user_id)

    def read() -> privacy.Consent:
        with service.database.read() as session:
            return privacy.consent_of(session, service.keyring.pseudonym(user_id))

    return ConsentResponse(user_id=user_id, consent=await asyncio.to_thread(read))


@router.put(f"/{USER}/consent", openapi_extra=json_schema(ConsentRequest))
async def set_consent(
    user_id: str, request: Request, service: ServiceDep, caller: PrincipalDep
) -> ConsentResponse:
    """Say what a user allows from now on."""
    _check(caller, user_id)
    body = await read_body(request, ConsentRequest, service.limits)
    chosen = service.settings.privacy.opt_out if body.consent == "opt_out" else body.consent
    act = service.act(_unnamed(caller, user_id), "consent")

    def write() -> None:
        with service.database.write() as session:
            privacy.set_consent(session, act, user_id, chosen)

    await asyncio.to_thread(write)
    return ConsentResponse(user_id=user_id, consent=chosen)


@router.delete(f"/{USER}")
async def erase(user_id: str, service: ServiceDep, caller: PrincipalDep) -> ErasureReport:
    """Erase a user: everything that is kept of them, with a signed report of what that was."""
    _check(caller, user_id)
    approved_by = THE_USER if user_id == caller.subject else _name(caller)
    actor = service.act(_unnamed(caller, user_id), "erasure").actor

    def work() -> dict[str, Any]:
        # Writing the whole file anew is left to retention: callers would wait for it.
        return _eraser(service).erase(user_id, actor=actor, approved_by=approved_by, thorough=False)

    return ErasureReport.model_validate(await asyncio.to_thread(work))


def _eraser(service: Service) -> Eraser:
    settings = service.settings
    return Eraser(
        database=service.database,
        keyring=service.keyring,
        store=ArtifactStore(settings.resolved_artifacts_url, cache=settings.home / "cache"),
        settings=settings,
        clock=service.clock,
        make_id=new_id,
    )


def _check(caller: Principal, user_id: str) -> None:
    if not user_id or len(user_id) > MAX_ID_CHARS or "\0" in user_id:
        raise ProblemError(
            422, f"user_id: must have 1 to {MAX_ID_CHARS} characters, no NUL", field="user_id"
        )
    if user_id != caller.subject and caller.role != "admin":
        raise ProblemError(403, "user_id: this is somebody else", field="user_id")


def _unnamed(caller: Principal, user_id: str) -> Principal:
    """The caller as it may be kept: not by the id that is to be forgotten."""
    if caller.subject != user_id:
        return caller
    return Principal(None, caller.role, caller.may_act_for_others)


def _name(caller: Principal) -> str:
    return caller.subject or caller.key_prefix or caller.role
