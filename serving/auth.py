"""Who is calling: with authentication off, the one who sits at this machine."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import Depends

from serving.problems import ProblemError

Role = Literal["user", "reviewer", "admin"]
"""Each includes those before it."""


@dataclass(frozen=True)
class Principal:
    """A caller, and what it may do."""

    subject: str | None
    """External user id; None: authentication is off, or a key that speaks for many users."""
    role: Role
    may_act_for_others: bool
    """Whether a `user_id` in a body is trusted."""


async def principal() -> Principal:
    """The caller of a request."""
    return Principal(None, "admin", True)


PrincipalDep = Annotated[Principal, Depends(principal)]


def acting_user(caller: Principal, user_id: str | None) -> str | None:
    """The user to record. Raises `ProblemError` (403) for somebody else's id."""
    if caller.may_act_for_others:
        return user_id
    if user_id is not None and user_id != caller.subject:
        raise ProblemError(
            HTTPStatus.FORBIDDEN, "user_id: you may only act for yourself", field="user_id"
        )
    return caller.subject
