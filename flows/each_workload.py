"""A flow on a schedule gives every workload its turn, whatever becomes of the others'."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flows.context import Context
from flows.errors import RefusedError, SomeFailedError
from registry import workloads
from registry.errors import BusyError
from registry.models import DEFAULT_WORKLOAD

COMPLETED, REFUSED = "Completed", "Refused"
NOT_NOW = (BusyError, RefusedError)
"""Nothing is wrong: another turn may come to something."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class End:
    """What came of a flow, for people, and its name where it has one of its own."""

    message: str
    name: str = COMPLETED


def chosen(context: Context, workload: str | None) -> list[str]:
    """The workload that was named; where none was, each one: oldest first, the default before.

    Raises `NotFoundError`.
    """
    with context.database.read() as session:
        if workload is not None:
            workloads.expect(session, workload)
            return [workload]
        names = [name for name, _ in workloads.created(session)]
    return sorted(names, key=lambda name: name != DEFAULT_WORKLOAD)


def in_turn(names: Sequence[str], turn: Callable[[str], End]) -> End:
    """Give each workload its turn. What came of a single one is what came of all.

    What cannot be done now is told like any other end. Of several, what fails is raised as
    `SomeFailedError`, when all have had their turn.
    """
    if len(names) == 1:
        try:
            return turn(names[0])
        except NOT_NOW as reason:
            return End(str(reason), REFUSED)
    ends: dict[str, End] = {}
    failed: dict[str, Exception] = {}
    for name in names:
        try:
            ends[name] = turn(name)
        except NOT_NOW as reason:
            ends[name] = End(str(reason), REFUSED)
        except Exception as error:
            logger.exception("workload '%s' failed", name)
            failed[name] = error
    if failed:
        raise _told(failed, len(names)) from next(iter(failed.values()))
    kinds = {end.name for end in ends.values()}
    return End(
        "\n".join(f"{name}: {end.message}" for name, end in ends.items()),
        kinds.pop() if len(kinds) == 1 else COMPLETED,
    )


def _told(failed: dict[str, Exception], number: int) -> SomeFailedError:
    reasons = (
        f"workload '{name}': {str(error) or type(error).__name__}" for name, error in failed.items()
    )
    return SomeFailedError(f"{len(failed)} of {number} workloads failed; {'; '.join(reasons)}")
