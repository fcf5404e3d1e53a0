"""Who is calling, and what they may do.

A caller shows a token (`Authorization: Bearer …`) or an API key (the same, or `X-API-Key`).
Where authentication is off, whoever reaches the endpoint may do everything.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_args

from fastapi import Depends, Request
from pydantic import TypeAdapter, ValidationError

from registry.crypto import Keyring
from registry.db import Database
from registry.keys import subject_of
from registry.settings_access import AuthSettings
from serving.access.keys import KeyLookup
from serving.access.other_sites import refuse_other_sites
from serving.access.tokens import (
    ProviderAwayError,
    ProviderKeys,
    TokenChecker,
    TokenError,
    make_signer,
)
from serving.problems import ProblemError, overloaded
from serving.schemas import Id

Role = Literal["user", "reviewer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
UNAUTHORIZED = 401
_SUBJECT = TypeAdapter(Id)


@dataclass(frozen=True)
class Principal:
    """A caller, and what it may do."""

    subject: str | None
    """The user's own id; None where the caller speaks for many users."""
    role: Role
    """Each role includes those before it: user, reviewer, admin."""
    may_act_for_others: bool
    """Whether a `user_id` in the body is trusted."""
    key_prefix: str | None = None
    """Prefix of the API key that was shown."""


EVERYBODY = Principal(None, "admin", True)
"""Who calls where authentication is off."""


class Authenticator:
    """Finds out who sent a request."""

    def __init__(self, settings: AuthSettings, *, database: Database, keyring: Keyring) -> None:
        signer = make_signer(settings, keyring)
        self.enabled = settings.enabled
        """Whether anybody is asked for a credential."""
        self._role_claim = settings.role_claim
        self._tokens = TokenChecker(settings, signer, ProviderKeys(settings))
        self._keys = KeyLookup(database, keyring)
        self._keyring = keyring

    async def principal(self, request: Request) -> Principal:
        """The caller of a request. Raises `ProblemError`: 401, or 503 where nobody can tell."""
        if not self.enabled:
            refuse_other_sites(request.headers)
            return EVERYBODY
        credential = _credential(request)
        if self._keys.looks_like_key(credential):
            return await self._of_key(credential)
        try:
            claims = await self._tokens.claims(credential)
        except TokenError as error:
            raise unauthorized(str(error)) from error
        except ProviderAwayError as error:
            raise overloaded(str(error)) from error
        return self._of_claims(claims)

    async def finish(self) -> None:
        """Return when what is written behind requests' backs is written."""
        await self._keys.finish()

    async def _of_key(self, text: str) -> Principal:
        key = await self._keys.get(text)
        if key is None:
            raise unauthorized("the API key is not valid")
        subject, role = subject_of(key, self._keyring), cast(Role, key.role)
        return Principal(subject, role, subject is None or role == "admin", key.prefix)

    def _of_claims(self, claims: Any) -> Principal:
        subject, role = claims["sub"], claims.get(self._role_claim, "user")
        try:
            _SUBJECT.validate_python(subject, strict=True)
        except ValidationError as error:
            raise unauthorized(f"the token's sub: {error.errors()[0]['msg']}") from error
        if role not in ROLES:
            raise unauthorized(f"the token's {self._role_claim} must be one of {', '.join(ROLES)}")
        return Principal(subject, role, role == "admin")


def unauthorized(detail: str) -> ProblemError:
    """A 401 that tells how to do better."""
    return ProblemError(
        UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="kalimtak"'}
    )


def _credential(request: Request) -> str:
    """What the request shows; exactly one thing, since two may not be of one caller."""
    bearers = request.headers.getlist("authorization")
    keys = request.headers.getlist("x-api-key")
    if len(bearers) + len(keys) > 1:
        raise unauthorized("show one credential, not several")
    if keys:
        return keys[0]
    if not bearers:
        raise unauthorized("show a token or an API key: Authorization: Bearer …")
    scheme, _, credential = bearers[0].partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise unauthorized("Authorization must be 'Bearer' and a token or an API key")
    return credential.strip()


async def principal(request: Request) -> Principal:
    """The caller of a request. Raises `ProblemError` 401."""
    service = request.app.state.service
    authenticator: Authenticator = service.authenticator
    try:
        return await authenticator.principal(request)
    except ProblemError as refusal:
        if refusal.status == UNAUTHORIZED:
            # Guessing is slowed down, wherever the guesses come in.
            await service.limiter.count_failure(request.client.host if request.client else None)
        raise


PrincipalDep = Annotated[Principal, Depends(principal)]


def require(role: Role) -> Callable[[Principal], Coroutine[Any, Any, Principal]]:
    """A dependency that lets `role` and those above it through; others get a 403."""

    async def check(caller: PrincipalDep) -> Principal:
        if ROLES.index(caller.role) < ROLES.index(role):
            raise ProblemError(403, f"this needs the role {role}, you have {caller.role}")
        return caller

    return check


AdminDep = Annotated[Principal, Depends(require("admin"))]
ReviewerDep = Annotated[Principal, Depends(require("reviewer"))]


def acting_user(caller: Principal, user_id: str | None, *, field: str = "user_id") -> str | None:
    """The user to record. Raises `ProblemError` 403 about `field` where that is somebody else."""
    if user_id is None or user_id == caller.subject:
        return caller.subject
    if not caller.may_act_for_others:
        raise ProblemError(403, f"{field}: this is somebody else", field=field)
    return user_id


def may_read_user(caller: Principal, user_id: str) -> None:
    """Raise `ProblemError` 403 unless the caller may read this user's rows."""
    if user_id != caller.subject and not caller.may_act_for_others:
        raise ProblemError(403, "user_id: this is somebody else", field="user_id")


def owner_of_logged(caller: Principal, keyring: Keyring) -> str | None:
    """Pseudonym of the one user whose interactions the caller logs; None: everybody's."""
    if caller.may_act_for_others:
        return None
    assert caller.subject is not None
    return keyring.pseudonym(caller.subject)


def owner_of_rated(caller: Principal, keyring: Keyring) -> str | None:
    """Pseudonym of the one user whose answers the caller may rate; None: everybody's."""
    if caller.may_act_for_others or caller.role != "user":
        return None
    assert caller.subject is not None
    return keyring.pseudonym(caller.subject)


def reviewing_as(caller: Principal, keyring: Keyring) -> str | None:
    """Pseudonym of the reviewer whose opinion it is; None where the one who asked speaks."""
    if caller.role != "reviewer" or caller.subject is None:
        return None
    return keyring.pseudonym(caller.subject)
