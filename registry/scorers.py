"""The fitted quality scorers of each workload, at most one of which is active.

Routers poll `active`; activation is an act that is audited, like a promotion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from registry import acts
from registry.deployment import Act
from registry.errors import NotFoundError
from registry.models import QualityScorer


@dataclass(frozen=True)
class ActiveRow:
    """Which scorer a workload's answers are scored by."""

    version: str
    digest: str


def version_name(now: datetime, digest: str) -> str:
    """A name that sorts by time."""
    return f"scorer-{int(now.timestamp())}-{digest[:8]}"


def add(
    session: Session,
    act: Act,
    *,
    version: str,
    workload: str,
    digest: str,
    metrics: Mapping[str, Any],
) -> QualityScorer:
    """Keep a scorer that was fitted; the act's reason says what its gate made of it."""
    row = QualityScorer(
        version=version,
        workload=workload,
        digest=digest,
        metrics=dict(metrics),
        status_reason=act.reason,
        created_at=act.now,
    )
    session.add(row)
    session.flush()
    _audit(session, act, "fit_scorer", row)
    return row


def activate(session: Session, act: Act, version: str) -> None:
    """Have answers scored by `version` from now on. Raises `NotFoundError`."""
    row = get(session, version)
    _stop(session, row.workload, reason=f"{version} took over")
    row.is_active, row.status_reason = True, act.reason
    session.add(row)
    session.flush()
    _audit(session, act, "activate_scorer", row)


def deactivate(session: Session, act: Act, *, workload: str) -> None:
    """Have the rule score again. Raises `NotFoundError` where it does already."""
    row = _stop(session, workload, reason=act.reason)
    if row is None:
        raise NotFoundError(f"no fitted scorer is active in workload '{workload}'")
    _audit(session, act, "deactivate_scorer", row)


def active(session: Session) -> dict[str, ActiveRow]:
    """The active scorer of every workload that has one."""
    rows = session.exec(
        select(QualityScorer.workload, QualityScorer.version, QualityScorer.digest).where(
            col(QualityScorer.is_active).is_(True)
        )
    )
    return {workload: ActiveRow(version, digest) for workload, version, digest in rows}


def get(session: Session, version: str) -> QualityScorer:
    """One scorer. Raises `NotFoundError`."""
    row = session.get(QualityScorer, version)
    if row is None:
        raise NotFoundError(f"no scorer '{version}' (kalimtak scorer list)")
    return row


def list_scorers(session: Session, *, workload: str, limit: int = 20) -> Sequence[QualityScorer]:
    """The scorers of a workload, newest first."""
    return session.exec(
        select(QualityScorer)
        .where(QualityScorer.workload == workload)
        .order_by(col(QualityScorer.created_at).desc(), col(QualityScorer.version).desc())
        .limit(limit)
    ).all()


def _stop(session: Session, workload: str, *, reason: str) -> QualityScorer | None:
    row = session.exec(
        select(QualityScorer).where(
            QualityScorer.workload == workload, col(QualityScorer.is_active).is_(True)
        )
    ).first()
    if row is not None:
        row.is_active, row.status_reason = False, reason
        session.add(row)
        session.flush()
    return row


def _audit(session: Session, act: Act, action: str, row: QualityScorer) -> None:
    told = {"workload": row.workload, "digest": row.digest}
    acts.record(session, act, action=action, subject=f"scorer:{row.version}", details=told)
