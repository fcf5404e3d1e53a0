"""What every flow works with, opened in one place and passed on explicitly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry import deployment, workloads
from registry.artifacts import ArtifactStore
from registry.clock import Clock, NewId, new_id, utc_now
from registry.crypto import Keyring, load_keyring
from registry.db import Database, open_database
from registry.deployment import Act
from registry.folders import make_private
from registry.key_rotation import check_keys
from registry.models import DEFAULT_WORKLOAD
from registry.settings import Settings, load_settings


@dataclass(frozen=True)
class Context:
    """One installation: its settings, what it knows, and where its time and ids come from."""

    settings: Settings
    database: Database
    store: ArtifactStore
    keyring: Keyring
    clock: Clock = utc_now
    new_id: NewId = new_id

    def act(self, actor: str, reason: str) -> Act:
        """A change of the desired state made now."""
        return Act(actor, reason, self.clock(), self.keyring, self.new_id)

    def folder(self, *parts: str) -> Path:
        """A folder below the installation's home, made where it is missing."""
        path = self.settings.home.joinpath(*parts)
        make_private(path)
        return path


def open_context(
    settings: Settings | None = None, *, clock: Clock = utc_now, workload: str = DEFAULT_WORKLOAD
) -> Context:
    """Open the installation that `settings` (default: the process's) describe.

    The schema is upgraded and the default workload exists afterwards. Raises `SettingsError`,
    `DatabaseError`, `KeyringError`, or `NotFoundError` where `workload` does not exist.
    """
    settings = load_settings() if settings is None else settings
    database = open_database(settings.resolved_database_url)
    keyring = load_keyring(settings.home, seals_texts=settings.privacy.encrypt_texts)
    check_keys(database, keyring, now=clock())
    with database.write() as session:
        deployment.add_workload(session, DEFAULT_WORKLOAD, now=clock())
        workloads.expect(session, workload)
    return Context(
        settings=settings,
        database=database,
        store=ArtifactStore(settings.resolved_artifacts_url, cache=settings.home / "cache"),
        keyring=keyring,
        clock=clock,
    )
