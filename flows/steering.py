"""What people do to an experiment by hand, from the command line or Prefect, with a reason."""

from __future__ import annotations

from enum import StrEnum

from flows.context import Context
from registry import by_hand, experiments
from registry.deployment import DesiredState, desired


class Act(StrEnum):
    """What can be done by hand."""

    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ROLL_BACK = "rollback"


def steer(context: Context, act: Act, *, workload: str, actor: str, reason: str) -> DesiredState:
    """Carry it out in one transaction; the state afterwards.

    Raises `NotFoundError` or `ConflictError` where there is nothing to do it to.
    """
    doing = context.act(actor, reason)
    with context.database.write() as session:
        if act is Act.PROMOTE:
            by_hand.promote(session, doing, workload=workload, version=None)
        elif act is Act.ROLL_BACK:
            by_hand.roll_back(session, doing, workload=workload)
        else:
            found = by_hand.running(session, workload=workload)
            if act is Act.PAUSE:
                experiments.pause(session, doing, experiment_id=found.id)
            elif act is Act.RESUME:
                experiments.resume(session, doing, experiment_id=found.id)
            else:
                frozen = act is Act.FREEZE
                experiments.freeze(session, doing, experiment_id=found.id, frozen=frozen)
        return desired(session, workload)
