"""Erases a user wherever something of them lies: database, spools, datasets, folders.

Every step may be repeated, so that an erasure that was interrupted is simply gone through
again (`resume`, which retention/daily does).
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import Session

from registry import erased_versions, erasure, erasure_report, leftovers, scrubbing
from registry.artifacts import ArtifactStore
from registry.clock import Clock, NewId, new_id, utc_now
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import Act
from registry.interactions import Feedback
from registry.models import Dataset, Erasure, UserInteraction
from registry.settings import Settings
from serving.recording.records import Item
from serving.recording.sweeping import sweep_quarantine, sweep_spools

SPOOL = "spool"
REASON = "it learned from data that was erased"

T = TypeVar("T")


@dataclass(frozen=True)
class Eraser:
    """Erases users of one installation."""

    database: Database
    keyring: Keyring
    store: ArtifactStore
    settings: Settings
    clock: Clock = utc_now
    make_id: NewId = new_id

    def erase(
        self, external_id: str, *, actor: str, approved_by: str, thorough: bool = True
    ) -> dict[str, Any]:
        """Erase a user; the signed report.

        `thorough`: also write SQLite's file anew; else retention does that within a day.
        """
        policy = self.settings.privacy.erased_versions
        with self.database.write() as session:
            row = erasure.begin(
                session, self._act(actor), external_id, approved_by=approved_by, policy=policy
            )
        return self.resume(row, thorough=thorough)

    def resume(self, row: Erasure, *, thorough: bool = True) -> dict[str, Any]:
        """Go through an erasure that was begun; the signed report."""
        act = self._act(row.requested_by)
        files, notes = self._sweep_files(row)
        while self._in_transaction(lambda session: erasure.delete_some(session, row.id)):
            pass
        self._in_transaction(lambda session: erasure.delete_user(session, act, row.id))
        files["datasets"] = self.delete_datasets(row.id)
        self.carry_out_policy()
        report = self._in_transaction(
            lambda session: erasure_report.complete(session, act, row.id, files=files, notes=notes)
        )
        if self.scrub(thorough=thorough):
            return self.read_report(row.id)
        return self.write_report(report)

    def delete_datasets(self, erasure_id: str) -> int:
        """Delete the files of datasets that held erased data; the rows stay, and say so."""
        with self.database.read() as session:
            found = [
                (effect, session.get(Dataset, effect.name))
                for effect in erasure.effects(session, erasure_id)
                if effect.kind == erasure.DATASET and effect.done_at is None
            ]
        removed = 0
        for effect, dataset in found:
            if dataset is not None:
                removed += self.store.remove(dataset.digest)
            with self.database.write() as session:
                effect.done_at = self.clock()
                session.add(session.merge(effect))
                kept = session.get(Dataset, effect.name)
                if kept is not None:
                    kept.files_deleted_at = effect.done_at
                    session.add(kept)
        return removed

    def carry_out_policy(self) -> list[str]:
        """Note versions made since, and do with them all what the policy says."""
        act = self._act("privacy", REASON)
        self._in_transaction(erasure.note_late_versions)
        return self._in_transaction(lambda session: list(erased_versions.carry_out(session, act)))

    def scrub(self, *, thorough: bool) -> bool:
        """Leave nothing in the database's free space; the reports say since when that is so."""
        if not scrubbing.scrub(self.database, thorough=thorough):
            return False
        with self.database.write() as session:
            for row in erasure.unscrubbed(session):
                row.scrubbed_at = self.clock()
                self.write_report(erasure_report.renew(session, row, self.keyring))
        return True

    def read_report(self, erasure_id: str) -> dict[str, Any]:
        """The report as it stands."""
        with self.database.read() as session:
            return dict(session.get_one(Erasure, erasure_id).report or {})

    def write_report(self, report: dict[str, Any]) -> dict[str, Any]:
        """Keep a report as a file too, beside the database."""
        folder = self.settings.home / erasure_report.FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{report['erasure_id']}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
        return report

    def _sweep_files(self, row: Erasure) -> tuple[dict[str, int], list[str]]:
        """What lies outside the database, while that still tells what is the user's."""
        assert row.user_id is not None
        external_id = erasure.external_id_of(row, self.keyring)
        home, notes = self.settings.home, []
        rehearsal = self.settings.curation.rehearsal_file
        with self.database.read() as session:
            ids = erasure.interaction_ids(session, row)
            runs, running = leftovers.sweep_runs(session, home, now=self.clock())
            rehearsed = (
                0
                if rehearsal is None
                else leftovers.sweep_rehearsal(session, Path(rehearsal), row.user_id, self.keyring)
            )
        keep = _without_user(external_id, row.user_id, ids)
        swept = sweep_spools(home / SPOOL, self.keyring, keep)
        if running:
            notes.append(f"{running} training runs are under way: what they make is noted later")
        files = {
            "spooled": swept.num_removed,
            "quarantined": sweep_quarantine(home / SPOOL, self.keyring, self.known_only(keep)),
            "rehearsal": rehearsed,
            "run_folders": runs,
            "reports": leftovers.sweep_pages(home),
        }
        return files, notes

    def known_only(self, keep: Callable[[Item], Item | None]) -> Callable[[Item], Item | None]:
        """As `keep`, without feedback on interactions that are not there (any more)."""

        def known(item: Item) -> Item | None:
            if isinstance(item, Feedback):
                with self.database.read() as session:
                    if session.get(UserInteraction, item.interaction_id) is None:
                        return None
            return keep(item)

        return known

    def _act(self, actor: str, reason: str = "erasure") -> Act:
        return Act(actor, reason, self.clock(), self.keyring, self.make_id)

    def _in_transaction(self, step: Callable[[Session], T]) -> T:
        with self.database.write() as session:
            return step(session)


def _without_user(
    external_id: str, user_id: str, ids: frozenset[str]
) -> Callable[[Item], Item | None]:
    def keep(item: Item) -> Item | None:
        if isinstance(item, Feedback):
            if item.owner == user_id or item.interaction_id in ids:
                return None
            return replace(item, rater_id=None) if item.rater_id == user_id else item
        left = tuple(row for row in item if row.external_user_id != external_id)
        return item if len(left) == len(item) else left or None

    return keep
