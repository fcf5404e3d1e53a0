"""Which version answers a request: pure functions of the desired state and what is loaded.

Assignment is a hash of experiment and unit, so that every router gives the same person the
same version, and raising the challenger's share keeps everyone who was already in.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from registry.deployment import DesiredState, LiveVersion

Role = Literal["default", "champion", "challenger"]


@dataclass(frozen=True)
class Route:
    """Who answers. No version: the base model. No experiment: the answer does not count."""

    role: Role
    version: LiveVersion | None
    experiment_id: str | None = None
    pinned: bool = False


@dataclass(frozen=True)
class Report:
    """What one live model replica says of itself."""

    replica_id: str
    kind: str
    seen_at: datetime
    versions: Mapping[str, str] = field(default_factory=dict)
    """Loaded version → adapter digest."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Version → why it cannot be loaded."""


def unit_of(*, user_id: str | None, session_id: str | None, request_id: str) -> str:
    """Whom an assignment sticks to: the user, else the session, else the request alone."""
    if user_id is not None:
        return f"user:{user_id}"
    if session_id is not None:
        return f"session:{session_id}"
    return f"request:{request_id}"


def position(experiment_id: str, unit: str) -> float:
    """Where a unit falls in [0, 1), independently for each experiment."""
    digest = hashlib.sha256(f"{experiment_id}\0{unit}".encode("utf-8", "surrogatepass")).digest()
    # A double holds 53 bits exactly: more would round up to 1.
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


def assign(state: DesiredState, *, unit: str) -> Route:
    """The version that answers `unit`."""
    experiment = state.experiment_id
    if experiment is None or not _has_other_arm(state):
        return champion(state)
    if state.mode == "shadow":
        return champion(state, experiment_id=experiment)
    if state.share == 0:
        # Without a share the trial is paused: nobody's answer counts.
        return champion(state)
    if position(experiment, unit) < state.share:
        tried = pick(state, unit=unit)
        return Route("default" if tried is None else "challenger", tried, experiment)
    return champion(state, experiment_id=experiment)


def pick(state: DesiredState, *, unit: str) -> LiveVersion | None:
    """The challenger for those who get one: of several the one that ranks first for the unit.

    Each has an equal part, and where one leaves only its people change (rendezvous hashing,
    Thaler & Ravishankar 1998). None: the base model, in a hold-back.
    """
    if len(state.challengers) < 2:
        return state.challenger
    return max(
        state.challengers,
        key=lambda live: position(f"{state.experiment_id}\0{live.version}", unit),
    )


def _has_other_arm(state: DesiredState) -> bool:
    """After a first promotion, the base model is what some people keep."""
    return state.challenger is not None or state.mode == "holdback"


def champion(state: DesiredState, *, experiment_id: str | None = None) -> Route:
    """The champion; the base model where there is none."""
    role: Role = "default" if state.champion is None else "champion"
    return Route(role, state.champion, experiment_id)


def pin(state: DesiredState, version: str, *, base_model: str) -> Route | None:
    """The route of a request that names a version, or "champion" or "challenger".

    None where it is not being served. Without a champion the base model stands for it.
    """
    if version == base_model:
        return Route("default", None, pinned=True)
    if version == "champion":
        return replace(champion(state), pinned=True)
    if version == "challenger":
        found = state.challenger
        return None if found is None else Route("challenger", found, pinned=True)
    for live in state.live:
        if live.version == version:
            role: Role = "challenger" if live in state.challengers else "champion"
            return Route(role, live, pinned=True)
    return None


def settle(
    desired: DesiredState, reports: Sequence[Report], *, current: DesiredState | None
) -> DesiredState | None:
    """What to serve now, given what the model replicas hold.

    `current` stays until every replica has loaded, or refused, what is desired; a version
    that one of them refuses gets no traffic. A refused champion is stood in for by the
    previous one, else by the base model. None: nothing can be served yet.
    """
    wanted = [version for version in (desired.champion, *desired.challengers) if version]
    if not reports or any(_is_pending(version, reports) for version in wanted):
        return current
    previous = _if_loaded(desired.previous, reports)
    serving = _if_loaded(desired.champion, reports)
    loaded = [version for version in desired.challengers if _is_loaded(version, reports)]
    challenger = loaded[0] if loaded else None
    stood_in = desired.champion is not None and serving is None
    if stood_in or (challenger is None and not _keeps_the_base(desired)):
        # Without both arms there is nothing to compare.
        challenger, loaded = None, []
        desired = replace(desired, share=0.0, experiment_id=None)
    return replace(
        desired,
        champion=previous if stood_in else serving,
        challenger=challenger,
        rivals=tuple(loaded[1:]),
        previous=previous,
    )


def _keeps_the_base(desired: DesiredState) -> bool:
    return desired.mode == "holdback" and desired.challenger is None


def _is_pending(version: LiveVersion, reports: Sequence[Report]) -> bool:
    return not any(version.version in report.refused for report in reports) and not _is_loaded(
        version, reports
    )


def _is_loaded(version: LiveVersion, reports: Sequence[Report]) -> bool:
    return all(report.versions.get(version.version) == version.adapter_digest for report in reports)


def _if_loaded(version: LiveVersion | None, reports: Sequence[Report]) -> LiveVersion | None:
    return version if version is not None and _is_loaded(version, reports) else None
