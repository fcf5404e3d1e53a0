"""Desired and observed state: what should serve, and what does.

Only this module changes `deployment_state`; every change raises its generation, closes a
period of the production history and opens the next, and is written to the audit log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from sqlmodel import Session, col, select

from registry import audit, people
from registry.clock import NewId
from registry.crypto import Keyring
from registry.errors import ConflictError
from registry.inserting import insert_ignoring_duplicates
from registry.models import (
    DEFAULT_WORKLOAD,
    DeploymentState,
    ExperimentArm,
    ModelVersion,
    ProductionPeriod,
    ReplicaStatus,
    Workload,
)

AUDIT_PURPOSE = "audit"
MAX_AHEAD_S = 10.0
"""The clock of another machine may be ahead by so much."""
Mode = Literal["trial", "shadow", "holdback"]


@dataclass(frozen=True)
class LiveVersion:
    """A version that replicas keep loaded."""

    version: str
    adapter_digest: str


@dataclass(frozen=True)
class DesiredState:
    """What one workload should serve. No champion: the base model answers."""

    workload: str
    generation: int
    champion: LiveVersion | None
    challenger: LiveVersion | None
    previous: LiveVersion | None
    share: float
    experiment_id: str | None
    mode: Mode = "trial"
    """What the challenger is there for; see `DeploymentState`."""
    rivals: tuple[LiveVersion, ...] = ()
    """Challengers beside `challenger`: each has an equal part of the share."""

    @property
    def challengers(self) -> tuple[LiveVersion, ...]:
        """All that are on trial."""
        return self.rivals if self.challenger is None else (self.challenger, *self.rivals)

    @property
    def live(self) -> tuple[LiveVersion, ...]:
        """All versions to keep loaded."""
        found = (self.champion, *self.challengers, self.previous)
        return tuple(version for version in found if version is not None)


@dataclass(frozen=True)
class Act:
    """Who changes something, why, and with what it is recorded."""

    actor: str
    reason: str
    now: datetime
    keyring: Keyring
    new_id: NewId
    person: str | None = None
    """The external id of somebody who acts over the API; `actor` has a hash of it."""

    def remember(self, session: Session) -> None:
        """Know the person by name from now on, so that the record can be read."""
        if self.person is not None:
            people.remember(session, self.person, self.keyring, self.now)


def add_workload(session: Session, name: str, *, now: datetime) -> bool:
    """Create a workload with the base model in production; False where it exists already."""
    workload = {"name": name, "created_at": now}
    is_new = insert_ignoring_duplicates(session, Workload, [workload]) > 0
    if is_new:
        state = {"workload": name, "updated_at": now}
        insert_ignoring_duplicates(session, DeploymentState, [state])
    return is_new


def unserved(workload: str) -> DesiredState:
    """The state of a workload for which nothing was decided."""
    return DesiredState(workload, 0, None, None, None, 0.0, None)


def desired(session: Session, workload: str = DEFAULT_WORKLOAD) -> DesiredState:
    """The desired state of one workload; an unknown one has no champion."""
    row = session.get(DeploymentState, workload)
    if row is None:
        return unserved(workload)
    return _states(session, [row])[workload]


def all_desired(session: Session) -> dict[str, DesiredState]:
    """The desired state of every workload, by name."""
    return _states(session, list(session.exec(select(DeploymentState)).all()))


def lock(session: Session, workload: str) -> DeploymentState:
    """The workload's row, held until the transaction ends, so that changes queue up."""
    return session.exec(
        select(DeploymentState)
        .where(DeploymentState.workload == workload)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()


def lock_all(session: Session) -> None:
    """Hold the rows of all workloads: for who changes several, or what any of them may need."""
    session.exec(
        select(DeploymentState)
        .order_by(col(DeploymentState.workload))  # so that two of these wait, and never lock up
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()


def expect(session: Session, workload: str, *, generation: int | None) -> None:
    """Hold the workload, at the generation that somebody saw; None: at any.

    Raises `ConflictError` where something was changed since.
    """
    found = lock(session, workload).generation
    if generation not in (None, found):
        raise ConflictError(
            f"workload '{workload}' is at generation {found}, not {generation}: look again"
        )


def change(
    session: Session,
    row: DeploymentState,
    act: Act,
    *,
    action: str,
    champion: str | None,
    challenger: str | None,
    previous: str | None,
    share: float,
    experiment_id: str | None,
    mode: Mode = "trial",
) -> None:
    """Set the whole desired state of a locked row."""
    behind = experiment_id or row.experiment_id  # a trial that ends is behind its end
    row.generation += 1
    row.champion, row.challenger, row.previous = champion, challenger, previous
    row.share, row.experiment_id, row.updated_at = share, experiment_id, act.now
    row.mode = mode
    session.add(row)
    _write_history(session, row, act, action=action, experiment_id=behind)
    rivals = _rivals(session, row)
    act.remember(session)
    audit.record(
        session,
        key=act.keyring.derive(AUDIT_PURPOSE),
        actor=act.actor,
        action=action,
        subject=f"workload:{row.workload}",
        now=act.now,
        details={
            "generation": row.generation,
            "champion": champion,
            "challenger": challenger,
            "share": share,
            "experiment": behind,
            "mode": mode,
            "reason": act.reason,
            **({"rivals": rivals} if rivals else {}),
        },
    )
    session.flush()


def report(
    session: Session,
    *,
    replica_id: str,
    kind: str,
    generations: Mapping[str, int],
    versions: Mapping[str, str],
    refused: Mapping[str, str],
    now: datetime,
) -> None:
    """A replica tells what it has made of the desired state.

    `generations`: workload → generation followed; `versions`: loaded version → adapter
    digest; `refused`: version → why it could not be loaded.
    """
    row = session.get(ReplicaStatus, replica_id) or ReplicaStatus(
        replica_id=replica_id, kind=kind, seen_at=now
    )
    row.generations = dict(generations)
    row.versions = dict(versions)
    row.refused = dict(refused)
    row.seen_at = now
    session.add(row)


def forget_replica(session: Session, replica_id: str) -> None:
    """A replica that stops takes its report with it."""
    row = session.get(ReplicaStatus, replica_id)
    if row is not None:
        session.delete(row)


def replicas(session: Session, *, now: datetime, max_age_s: float = 10) -> list[ReplicaStatus]:
    """The replicas that reported within `max_age_s`.

    A report of the future was left before a clock was set back: it tells of nobody's life.
    """
    seen_at = col(ReplicaStatus.seen_at)
    since, until = now - timedelta(seconds=max_age_s), now + timedelta(seconds=MAX_AHEAD_S)
    return list(session.exec(select(ReplicaStatus).where(seen_at >= since, seen_at <= until)).all())


def is_observed(
    session: Session,
    *,
    workload: str,
    generation: int,
    now: datetime,
    max_age_s: float = 10,
) -> bool:
    """Whether every live replica follows at least `generation`, and there is one."""
    found = replicas(session, now=now, max_age_s=max_age_s)
    return bool(found) and all(
        replica.generations.get(workload, -1) >= generation for replica in found
    )


def _states(session: Session, rows: list[DeploymentState]) -> dict[str, DesiredState]:
    rivals = {row.workload: _rivals(session, row) for row in rows}
    names = {
        name
        for row in rows
        for name in (row.champion, row.challenger, row.previous, *rivals[row.workload])
        if name is not None
    }
    digests = _digests(session, names)
    return {row.workload: _state(row, rivals[row.workload], digests) for row in rows}


def _rivals(session: Session, row: DeploymentState) -> list[str]:
    """The challengers on trial beside the row's own, in their order."""
    if row.experiment_id is None:
        return []
    found = session.exec(
        select(ExperimentArm.version)
        .where(
            ExperimentArm.experiment_id == row.experiment_id,
            ExperimentArm.status == "running",
            col(ExperimentArm.version).is_distinct_from(row.challenger),
        )
        .order_by(col(ExperimentArm.place))
    )
    return list(found)


def _digests(session: Session, names: set[str]) -> dict[str, str]:
    if not names:
        return {}
    found = session.exec(
        select(ModelVersion.version, ModelVersion.adapter_digest).where(
            col(ModelVersion.version).in_(names)
        )
    )
    return dict(list(found))


def _state(row: DeploymentState, rivals: Sequence[str], digests: Mapping[str, str]) -> DesiredState:
    def live(version: str | None) -> LiveVersion | None:
        return None if version is None else LiveVersion(version, digests[version])

    return DesiredState(
        workload=row.workload,
        generation=row.generation,
        champion=live(row.champion),
        challenger=live(row.challenger),
        previous=live(row.previous),
        share=row.share,
        experiment_id=row.experiment_id,
        mode=cast(Mode, row.mode),
        rivals=tuple(LiveVersion(version, digests[version]) for version in rivals),
    )


def _write_history(
    session: Session, row: DeploymentState, act: Act, *, action: str, experiment_id: str | None
) -> None:
    open_periods: Any = session.exec(
        select(ProductionPeriod).where(
            ProductionPeriod.workload == row.workload,
            col(ProductionPeriod.to_at).is_(None),
        )
    )
    for period in open_periods:
        period.to_at = act.now
        session.add(period)
    session.add(
        ProductionPeriod(
            id=act.new_id(),
            workload=row.workload,
            generation=row.generation,
            version=row.champion,
            challenger=row.challenger,
            rivals=_rivals(session, row) or None,
            share=row.share,
            action=action,
            experiment_id=experiment_id,
            reason=act.reason,
            actor=act.actor,
            from_at=act.now,
        )
    )
