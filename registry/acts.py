"""Writes down who did what: the audit entry of an act, in the act's own transaction."""

from typing import Any

from sqlmodel import Session

from registry import audit
from registry.deployment import AUDIT_PURPOSE, Act


def record(
    session: Session,
    act: Act,
    *,
    action: str,
    subject: str,
    details: dict[str, Any] | None = None,
) -> None:
    """Keep an act with its reason. Where that fails, the act is rolled back with it.

    `subject`: "kind:name" of what was acted on, such as "workload:default".
    """
    act.remember(session)
    audit.record(
        session,
        key=act.keyring.derive(AUDIT_PURPOSE),
        actor=act.actor,
        action=action,
        subject=subject,
        now=act.now,
        details={**(details or {}), "reason": act.reason},
    )
