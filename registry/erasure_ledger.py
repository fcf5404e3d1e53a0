"""Erasures that a backup knows nothing of, carried over into what was restored from it.

Signed reports tell of them, without telling who it was: their `subject` is a keyed hash of the
pseudonym, which each restored user's is held against.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, inspect
from sqlmodel import Session, col, select

from registry import erasure, privacy
from registry.crypto import Keyring
from registry.deployment import Act
from registry.erasure_report import is_genuine
from registry.errors import BackupError, KeyringError
from registry.models import Erasure, User

Report = Mapping[str, Any]
PENDING = sa.text(
    "SELECT id, external_id_encrypted, approved_by, policy FROM erasures "
    "WHERE completed_at IS NULL AND external_id_encrypted IS NOT NULL"
)


@dataclass(frozen=True)
class Wish:
    """An erasure that was begun and not completed."""

    erasure_id: str
    external_id: str
    approved_by: str
    policy: str


@dataclass(frozen=True)
class CarriedOver:
    """What came of the reports."""

    num_erasures: int
    """Erasures that the backup did not know, and that hold again."""
    num_pending: int
    """Erasures that are left to finish: of people who are back, or that were under way then."""


def reports_in(folder: Path) -> list[Report]:
    """The reports that lie in a folder; what is no JSON object is none."""
    found: list[Report] = []
    for path in sorted(folder.glob("*.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(report, dict):
            found.append(report)
    return found


def reports_of(connection: Connection) -> list[Report]:
    """The reports in a database that is about to be replaced, of whatever schema."""
    if "erasures" not in inspect(connection).get_table_names():
        return []
    stored = connection.scalars(sa.text("SELECT report FROM erasures")).all()
    reports = [json.loads(report) if isinstance(report, str) else report for report in stored]
    return [report for report in reports if isinstance(report, dict)]


def wishes_of(connection: Connection, keyring: Keyring) -> list[Wish]:
    """Erasures under way in a database that is about to be replaced, of whatever schema.

    Raises `BackupError` where it cannot be read whom they are about.
    """
    if "erasures" not in inspect(connection).get_table_names():
        return []
    return [
        Wish(erasure_id, _of_wish(erasure_id, sealed, keyring), approved_by, policy)
        for erasure_id, sealed, approved_by, policy in connection.execute(PENDING)
    ]


def _of_wish(erasure_id: str, sealed: str, keyring: Keyring) -> str:
    try:
        return keyring.decrypt(sealed, context=f"erasures.external_id:{erasure_id}")
    except KeyringError as error:
        raise BackupError(
            f"erasure {erasure_id} is under way in the database that is to be replaced, and whom "
            f"it is about cannot be read ({error}): put that key back, or move the database away"
        ) from error


def carry_over(
    session: Session, act: Act, reports: Iterable[Report], wishes: Iterable[Wish] = ()
) -> CarriedOver:
    """Have erasures hold again; those of people who are back are begun, for the eraser to finish.

    Those that were under way are, too. Reports that this installation did not sign count for
    nothing.
    """
    known = set(session.exec(select(Erasure.id)))
    waiting = [wish for wish in wishes if wish.erasure_id not in known]
    new = {
        str(report["erasure_id"]): report
        for report in reports
        if is_genuine(report, act.keyring) and report["erasure_id"] not in known
    }
    for report in new.values():
        session.add(_row(report))
    session.flush()
    back = _users(session, act.keyring, {str(report["subject"]) for report in new.values()})
    for report in new.values():
        external_id = back.pop(str(report["subject"]), None)
        if external_id is not None:
            erasure.begin(
                session,
                act,
                external_id,
                approved_by=str(report["approved_by"]),
                policy=str(report["policy"]),
            )
    for wish in waiting:
        erasure.begin(
            session, act, wish.external_id, approved_by=wish.approved_by, policy=wish.policy
        )
    return CarriedOver(len(new), len(erasure.pending(session)))


def _users(session: Session, keyring: Keyring, subjects: set[str]) -> dict[str, str]:
    """The external ids of users that are there, by subject."""
    if not subjects:
        return {}
    found = {}
    rows = session.exec(
        select(User.id, User.external_id_encrypted).where(
            col(User.external_id_encrypted).is_not(None)
        )
    )
    for user_id, sealed in rows:
        subject = privacy.subject_of(user_id, keyring)
        if subject in subjects and sealed is not None:
            found[subject] = keyring.decrypt(sealed, context=f"users.external_id:{user_id}")
    return found


def _row(report: Report) -> Erasure:
    return Erasure(
        id=report["erasure_id"],
        subject=report["subject"],
        requested_by=report["requested_by"],
        approved_by=report["approved_by"],
        policy=report["policy"],
        requested_at=datetime.fromisoformat(report["requested_at"]),
        completed_at=datetime.fromisoformat(report["completed_at"]),
        scrubbed_at=None
        if report["scrubbed_at"] is None
        else datetime.fromisoformat(report["scrubbed_at"]),
        counts=dict(report["rows"]),
        report=dict(report),
    )
