"""Who is calling. Without authentication, whoever reaches the port may do everything."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Request

from serving.problems import ProblemError

Role = Literal["user", "reviewer", "admin"]
_ORDER: tuple[Role, ...] = ("user", "reviewer", "admin")


@dataclass(frozen=True)
class Principal:
    """A caller, and what it may do."""

    subject: str | None
    """The external user id; None: nobody in particular."""
    role: Role
    may_act_for_others: bool
    """Whether a `user_id` in the body is trusted."""


async def principal(_request: Request) -> Principal:
    """The caller of a request."""
    return Principal(None, "admin", True)


PrincipalDep = Annotated[Principal, Depends(principal)]


def require(role: Role) -> Callable[[Principal], Coroutine[Any, Any, Principal]]:
    """A dependency that lets only `role` and those above it through."""

    async def check(caller: PrincipalDep) -> Principal:
        if _ORDER.index(caller.role) < _ORDER.index(role):
            raise ProblemError(403, f"this needs the role {role}")
        return caller

    return check


AdminDep = Annotated[Principal, Depends(require("admin"))]
ReviewerDep = Annotated[Principal, Depends(require("reviewer"))]


def acting_user(caller: Principal, user_id: str | None) -> str | None:
    """The user to record. Raises `ProblemError` 403 where that is somebody else."""
    if user_id is None or user_id == caller.subject:
        return caller.subject
    if not caller.may_act_for_others:
        raise ProblemError(403, "user_id: this is somebody else's", field="user_id")
    return user_id


def may_read_user(caller: Principal, user_id: str) -> None:
    """Raise `ProblemError` 403 unless the caller may read this user's rows."""
    if user_id != caller.subject and not caller.may_act_for_others:
        raise ProblemError(403, "user_id: this is somebody else's", field="user_id")
