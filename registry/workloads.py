"""Workloads: one task each, with its own data, versions and experiments."""

import re
from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from registry import acts, deployment
from registry.deployment import Act
from registry.errors import ConflictError, NotFoundError, SettingsError
from registry.models import DEFAULT_WORKLOAD, Workload

PRODUCT = "kalimtak"
"""What clients call the default workload."""
RESERVED = frozenset(
    {PRODUCT, DEFAULT_WORKLOAD, "champion", "challenger", "previous", "base", "shadow", "embedded"}
)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_name(name: str) -> None:
    """Raise `SettingsError` unless a workload may be called so."""
    if _NAME.fullmatch(name) is None:
        raise SettingsError(
            f"workload '{name}': use 1 to 63 of a-z, 0-9, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    if name in RESERVED:
        raise SettingsError(f"workload '{name}': the name is taken by the product itself")


def add(session: Session, act: Act, name: str) -> None:
    """Create a workload; the base model serves it. Raises `SettingsError` or `ConflictError`."""
    check_name(name)
    if not deployment.add_workload(session, name, now=act.now):
        raise ConflictError(f"workload '{name}' exists already")
    acts.record(session, act, action="add_workload", subject=f"workload:{name}")


def expect(session: Session, name: str) -> None:
    """Raise `NotFoundError`, naming those that there are, unless there is such a workload."""
    names = session.exec(select(Workload.name).order_by(col(Workload.name))).all()
    if name not in names:
        raise NotFoundError(f"there is no workload '{name}'; there are: {', '.join(names)}")


def created(session: Session) -> Sequence[tuple[str, datetime]]:
    """Every workload with its beginning, oldest first."""
    rows = session.exec(select(Workload).order_by(col(Workload.created_at), col(Workload.name)))
    return [(row.name, row.created_at) for row in rows]
