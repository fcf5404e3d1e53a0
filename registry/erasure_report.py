"""The report of an erasure: how much went, what it touched, who approved it; no content.

It is signed with a key derived from the installation's (HMAC-SHA256), so that whoever is shown
a report later can have it checked.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import Session

from registry import audit, erasure
from registry.crypto import Keyring
from registry.deployment import AUDIT_PURPOSE, Act
from registry.models import Erasure, ErasureEffect, ModelVersion

PURPOSE = "erasure-report"
SIGNATURE = "signature"
FOLDER = "erasures"
"""Of the home folder: where reports are kept as files too."""


def complete(
    session: Session, act: Act, erasure_id: str, *, files: Mapping[str, int], notes: Sequence[str]
) -> dict[str, Any]:
    """Forget whom the erasure was about, and keep its signed report, which is returned.

    `files`: how much went of what lies outside the database; `notes`: what is still to come.
    Where another pass was first, its report stands.
    """
    row = erasure.hold(session, erasure_id)
    if row.completed_at is not None:
        return dict(row.report)
    row.user_id = row.external_id_encrypted = None
    row.completed_at = act.now
    row.report = _signed(_content(session, row, files=files, notes=notes), act.keyring)
    session.add(row)
    touched = erasure.effects(session, erasure_id)
    audit.record(
        session,
        key=act.keyring.derive(AUDIT_PURPOSE),
        actor=act.actor,
        action="user_erased",
        subject=f"erasure:{erasure_id}",
        now=act.now,
        details={
            "approved_by": row.approved_by,
            "rows": dict(row.counts),
            "datasets": sum(effect.kind == erasure.DATASET for effect in touched),
            "versions": [effect.name for effect in touched if effect.kind == erasure.VERSION],
        },
    )
    return dict(row.report)


def renew(session: Session, row: Erasure, keyring: Keyring) -> dict[str, Any]:
    """Write the report of a completed erasure anew, with what was found or done since."""
    before = row.report or {}
    content = _content(session, row, files=before.get("files", {}), notes=[])
    row.report = _signed(content, keyring)
    session.add(row)
    return dict(row.report)


def is_genuine(report: Mapping[str, Any], keyring: Keyring) -> bool:
    """Whether a report is one of ours, unaltered."""
    content = {name: value for name, value in report.items() if name != SIGNATURE}
    expected = _sign(content, keyring)
    return hmac.compare_digest(str(report.get(SIGNATURE, "")).encode(), expected.encode())


def _content(
    session: Session, row: Erasure, *, files: Mapping[str, int], notes: Sequence[str]
) -> dict[str, Any]:
    touched = erasure.effects(session, row.id)
    return {
        "erasure_id": row.id,
        "subject": row.subject,
        "requested_at": row.requested_at.isoformat(),
        "completed_at": None if row.completed_at is None else row.completed_at.isoformat(),
        "scrubbed_at": None if row.scrubbed_at is None else row.scrubbed_at.isoformat(),
        "requested_by": row.requested_by,
        "approved_by": row.approved_by,
        "policy": row.policy,
        "rows": dict(row.counts),
        "files": dict(files),
        "datasets": [_shown(effect) for effect in touched if effect.kind == erasure.DATASET],
        "versions": [
            _shown(effect) | {"status": _status(session, effect.name)}
            for effect in touched
            if effect.kind == erasure.VERSION
        ],
        "still_to_come": list(notes),
    }


def _shown(effect: ErasureEffect) -> dict[str, Any]:
    return {
        "name": effect.name,
        "workload": effect.workload,
        "action": effect.action,
        "done_at": None if effect.done_at is None else effect.done_at.isoformat(),
    }


def _status(session: Session, version: str) -> str | None:
    row = session.get(ModelVersion, version)
    return None if row is None else row.deployment_status


def _signed(content: dict[str, Any], keyring: Keyring) -> dict[str, Any]:
    return {**content, SIGNATURE: _sign(content, keyring)}


def _sign(content: Mapping[str, Any], keyring: Keyring) -> str:
    return keyring.digest(PURPOSE, json.dumps(content, sort_keys=True, ensure_ascii=True))
