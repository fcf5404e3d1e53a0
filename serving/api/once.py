"""`Idempotency-Key`: a repeated request is answered as the first was, by any router."""

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from fastapi import Request
from starlette.responses import Response

from registry import idempotency, texts
from registry.clock import new_id, utc_now
from registry.errors import ConflictError
from registry.idempotency import InFlightError, Stored
from serving.access.auth import Principal
from serving.api.service import Service
from serving.problems import RETRY_AFTER, ProblemError

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotent-Replayed": "true"}
MAX_KEY_CHARS = 255
_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY_CHARS}}}")
_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Repeating the request with the same key and body within 24 hours gives the "
    "first answer again, with the header Idempotent-Replayed. Not for streams.",
    "schema": {"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": MAX_KEY_CHARS},
}
DESCRIBED = {"parameters": [_PARAMETER]}
"""For the OpenAPI document of routes that may be repeated."""
LEASE_MARGIN_S = 30.0
"""Beyond the longest request: then its router must have died."""


@dataclass(frozen=True)
class _Claim:
    key_id: str
    body_digest: str
    token: str
    user_id: str | None = None


async def once(
    request: Request,
    service: Service,
    caller: Principal,
    raw: bytes,
    work: Callable[[], Awaitable[Response]],
    *,
    user_id: str | None = None,
) -> Response:
    """What `work` answers; with a key, what it answered to the same body before.

    Raises `ProblemError` 409 for another body, and while the first request is under way. A
    request that fails leaves its key free. `user_id`: whom the answer is for.
    """
    key = key_of(request)
    if key is None:
        return await work()
    claim = _Claim(
        _digest(_scope(request, caller), request.url.path, key),
        hashlib.sha256(raw).hexdigest(),
        new_id(),
        None if user_id is None else service.keyring.pseudonym(user_id),
    )
    stored = await asyncio.to_thread(_take, service, claim)
    if stored is not None:
        return Response(stored.body, stored.status, REPLAYED, stored.media_type)
    try:
        response = await work()
    except BaseException:
        await asyncio.shield(asyncio.to_thread(_free, service, claim))
        raise
    await asyncio.to_thread(_keep, service, claim, response)
    return response


def key_of(request: Request) -> str | None:
    """The request's key, if it has one. Raises `ProblemError` 400 for one that cannot be."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if _KEY.fullmatch(key) is None:
        raise ProblemError(
            400, f"{HEADER}: must be 1 to {MAX_KEY_CHARS} visible ASCII characters", field=HEADER
        )
    return key


def refuse_key(request: Request) -> None:
    """Raise `ProblemError` 400 where a stream is asked for with a key."""
    if key_of(request) is not None:
        raise ProblemError(400, f"{HEADER}: a stream cannot be repeated", field=HEADER)


def _scope(request: Request, caller: Principal) -> str:
    """Nobody reaches another's answers: keys are told apart by who sends them."""
    if caller.subject is not None:
        return f"user:{caller.subject}"
    return f"credential:{request.headers.get('authorization', '')}"


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _take(service: Service, claim: _Claim) -> Stored | None:
    lease = timedelta(seconds=service.settings.serving.request_timeout_s + LEASE_MARGIN_S)
    try:
        with service.database.write() as session:
            stored = idempotency.claim(
                session,
                key_id=claim.key_id,
                body_digest=claim.body_digest,
                token=claim.token,
                lease=lease,
                now=utc_now(),
                user_id=claim.user_id,
            )
    except ConflictError as error:
        headers = RETRY_AFTER if isinstance(error, InFlightError) else None
        raise ProblemError(409, str(error), field=HEADER, headers=headers) from error
    if stored is None:
        return None
    body = texts.unseal(stored.body, place=_place(claim), keyring=service.keyring)
    return replace(stored, body=body)


def _keep(service: Service, claim: _Claim, response: Response) -> None:
    body = texts.seal(bytes(response.body).decode(), place=_place(claim), keyring=service.keyring)
    answer = Stored(response.status_code, response.media_type or "", body)
    with service.database.write() as session:
        idempotency.keep(
            session, key_id=claim.key_id, token=claim.token, answer=answer, now=utc_now()
        )


def _place(claim: _Claim) -> str:
    return f"idempotency_keys.body:{claim.key_id}"


def _free(service: Service, claim: _Claim) -> None:
    with service.database.write() as session:
        idempotency.free(session, key_id=claim.key_id, token=claim.token)
