"""`Idempotency-Key`: a repeated request is answered as the first was, by any router."""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session
from starlette.responses import Response

from registry import idempotency, privacy, texts
from registry.clock import new_id, utc_now
from registry.errors import ConflictError
from registry.idempotency import InFlightError, Stored
from serving.access.auth import Principal
from serving.api.service import Service
from serving.problems import RETRY_AFTER, ProblemError, answer_with

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
_NOT_KEPT = ProblemError(
    409,
    f"{HEADER}: this request was answered, and its user wants no content kept: the answer is gone",
    field=HEADER,
)
LEASE_MARGIN_S = 30.0
"""Beyond the longest request: then its router must have died."""

logger = logging.getLogger(__name__)


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
    holds_texts: bool = True,
) -> Response:
    """What `work` answers; with a key, what it answered to the same body before.

    Raises `ProblemError` 409 for another body, and while the first request is under way. A
    request that fails leaves its key free. `user_id`: whom the answer is for; `holds_texts`:
    whether it is not kept where that user wants no content kept.
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
        await asyncio.shield(asyncio.to_thread(_unless_away, partial(_free, service, claim)))
        raise
    instead = answer_with(request, _NOT_KEPT) if holds_texts else response
    keep = partial(_keep, service, claim, response, instead=instead)
    await asyncio.to_thread(_unless_away, keep)
    return response


def event_id(request: Request, caller: Principal, raw: bytes) -> str | None:
    """An id for what a request with a key writes down, so that it is written once.

    None without a key. It holds where the answer could not be kept, too.
    """
    key = key_of(request)
    if key is None:
        return None
    return _digest(_scope(request, caller), request.url.path, key, hashlib.sha256(raw).hexdigest())


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
    if caller.key_prefix is not None:
        return f"key:{caller.key_prefix}"
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


def _unless_away(step: Callable[[], None]) -> None:
    """Without the database, what has been done is told all the same; the claim ends by itself."""
    try:
        step()
    except SQLAlchemyError as error:
        logger.warning("what became of an Idempotency-Key was not kept: %s", error)


def _keep(service: Service, claim: _Claim, response: Response, *, instead: Response) -> None:
    """Keep the answer; of a user who wants no content kept, `instead`."""
    with service.database.write() as session:
        if claim.user_id is not None and _wants_no_content(session, claim.user_id):
            response = instead
        text = bytes(response.body).decode()
        body = texts.seal(text, place=_place(claim), keyring=service.keyring)
        answer = Stored(response.status_code, response.media_type or "", body)
        idempotency.keep(
            session, key_id=claim.key_id, token=claim.token, answer=answer, now=utc_now()
        )


def _wants_no_content(session: Session, user_id: str) -> bool:
    return privacy.consent_of(session, user_id) == "no_content"


def _place(claim: _Claim) -> str:
    return f"idempotency_keys.body:{claim.key_id}"


def _free(service: Service, claim: _Claim) -> None:
    with service.database.write() as session:
        idempotency.free(session, key_id=claim.key_id, token=claim.token)
