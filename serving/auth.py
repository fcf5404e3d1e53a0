"""Who is calling. Authentication is off: everybody is an admin, on loopback alone."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

Role = Literal["user", "reviewer", "admin"]


@dataclass(frozen=True)
class Principal:
    """Whoever a request comes from."""

    subject: str | None
    role: Role
    may_act_for_others: bool
    key_prefix: str | None = None


async def principal(_request: Request) -> Principal:
    """The caller of a request."""
    return Principal(None, "admin", True)


PrincipalDep = Annotated[Principal, Depends(principal)]
