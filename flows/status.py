"""What `kalimtak status` shows: one reading of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from flows.context import Context
from registry import deployment, experiments, runs
from registry.statistics import statistics

NUM_DECISIONS = 5


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One look at an experiment."""

    decided_at: datetime
    action: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """One workload at one moment. Rates and means are None where nothing was counted."""

    workload: str
    total_interactions: int
    feedback_rate: float | None
    avg_quality: float | None
    error_rate: float | None
    retrains: int
    training: str | None
    """Since when the running training runs, and what it told last."""
    last_training: str | None
    champion: str
    challenger: str | None
    """Several are named one after the other."""
    challenger_share: float
    """Of all of them together."""
    decisions: tuple[Decision, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: times in ISO form."""
        found = asdict(self)
        for decision in found["decisions"]:
            decision["decided_at"] = decision["decided_at"].isoformat()
        return found


def read_status(context: Context, *, workload: str) -> Status:
    """The workload as it is now."""
    with context.database.read() as session:
        usage = statistics(session, workload=workload)
        desired = deployment.desired(session, workload)
        running = runs.running(session, workload=workload)
        last = runs.last(session, workload=workload, statuses=tuple(sorted(runs.ENDED)))
        looks = experiments.last_decisions(session, workload=workload, limit=NUM_DECISIONS)
        num_retrains = runs.count(session, workload=workload)
    return Status(
        workload=workload,
        total_interactions=usage.total,
        feedback_rate=usage.feedback_rate,
        avg_quality=usage.avg_quality,
        error_rate=usage.error_rate,
        retrains=num_retrains,
        training=None if running is None else f"since {running.started_at:%Y-%m-%d %H:%M} UTC",
        last_training=None if last is None else f"{last.status}: {last.reason}",
        champion="base model" if desired.champion is None else desired.champion.version,
        challenger=", ".join(live.version for live in desired.challengers) or None,
        challenger_share=desired.share,
        decisions=tuple(
            Decision(
                decided_at=look.decided_at,
                action=look.action,
                reason="; ".join(look.reasons["reasons"]),
            )
            for look in looks
        ),
    )


def rows(status: Status) -> Mapping[str, str]:
    """What is shown, name by name."""
    return {
        "total interactions": str(status.total_interactions),
        "feedback rate": _percent(status.feedback_rate),
        "average quality": "–" if status.avg_quality is None else f"{status.avg_quality:.3f}",
        "error rate": _percent(status.error_rate),
        "retrains": str(status.retrains),
        "training now": status.training or "no",
        "last training": status.last_training or "–",
        "champion": status.champion,
        "challenger": "–"
        if status.challenger is None
        else f"{status.challenger} at {status.challenger_share:.0%} of the traffic",
    }


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
