"""Shared by the serving tests: a tiny base with three adapters, and a registry in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from sqlalchemy import text

from registry import deployment, experiments, versions
from registry.artifacts import ArtifactStore
from registry.clock import new_id, utc_now
from registry.crypto import Keyring, load_keyring
from registry.db import Database, open_database
from registry.models import Experiment
from registry.settings import ServingSettings, Settings, TrainingSettings
from tests.support.tiny_adapters import make_adapter, make_broken_adapter
from tests.support.tiny_model import make_tiny_model

WORKLOAD = "default"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a loadable base model."""
    return make_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters on the tiny base, by what is remarkable about them."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "one": make_adapter(tiny_base, folder / "one", seed=1),
        "two": make_adapter(tiny_base, folder / "two", seed=2),
        "broken": make_broken_adapter(tiny_base, folder / "broken"),
    }


@dataclass(frozen=True)
class Installation:
    """A registry on disk, and what the flows would do to it."""

    settings: Settings
    database: Database
    store: ArtifactStore
    keyring: Keyring

    def act(self, reason: str = "a test") -> deployment.Act:
        """Who acts in these tests."""
        return deployment.Act("test", reason, utc_now(), self.keyring, new_id)

    def register(self, adapter: Path, *, workload: str = WORKLOAD) -> str:
        """Publish and register an adapter; the new version's name."""
        digest = self.store.publish(adapter)
        with self.database.write() as session:
            return versions.register(
                session,
                version=versions.version_name("tiny", utc_now()),
                workload=workload,
                base_model="tiny",
                adapter_digest=digest,
                recipe="tiny_cpu",
                now=utc_now(),
            ).version

    def deploy(self, version: str, *, workload: str = WORKLOAD) -> None:
        """Make a version champion."""
        with self.database.write() as session:
            experiments.deploy(session, self.act(), workload=workload, version=version)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else holds what a writer needs."""
        with self.database.write() as session:
            if session.connection().dialect.name == "postgresql":
                tables = "user_interactions, idempotency_keys"
                session.connection().execute(text(f"LOCK TABLE {tables} IN EXCLUSIVE MODE"))
            yield

    def roll_back(self) -> None:
        """Return to the previous champion."""
        with self.database.write() as session:
            experiments.roll_back_champion(session, self.act(), workload=WORKLOAD)

    def try_out(self, version: str, *, share: float, workload: str = WORKLOAD) -> Experiment:
        """Start an experiment with `version` as challenger."""
        with self.database.write() as session:
            return experiments.start(
                session,
                self.act(),
                workload=workload,
                challenger=version,
                share=share,
                settings={},
            )

    def retire(self, experiment_id: str) -> None:
        """End an experiment without a promotion."""
        with self.database.write() as session:
            experiments.stop(
                session,
                self.act(),
                experiment_id=experiment_id,
                status=versions.Status.RETIRED,
            )

    def digest(self, version: str) -> str:
        """The digest of a version's adapter."""
        with self.database.read() as session:
            return versions.get(session, version).adapter_digest

    def desired(self) -> deployment.DesiredState:
        """What should serve."""
        with self.database.read() as session:
            return deployment.desired(session, WORKLOAD)


@pytest.fixture
def installation(
    tmp_path: Path, tiny_base: Path, registry_url: str | None
) -> Iterator[Installation]:
    """An empty registry that serves the tiny base."""
    settings = Settings(
        home=tmp_path / "home",
        database_url=registry_url,
        serving=ServingSettings(
            max_new_tokens=8, request_timeout_s=20, poll_interval_s=0.05, max_text_chars=300
        ),
        training=TrainingSettings(base_model=str(tiny_base)),
    )
    database = open_database(settings.resolved_database_url)
    with database.write() as session:
        deployment.add_workload(session, WORKLOAD, now=utc_now())
    yield Installation(
        settings=settings,
        database=database,
        store=ArtifactStore(settings.resolved_artifacts_url, cache=settings.home / "cache"),
        keyring=load_keyring(settings.home),
    )
    database.close()
