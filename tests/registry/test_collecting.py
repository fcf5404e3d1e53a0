"""What is promoted while garbage is collected keeps its adapter, or is not promoted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from registry import by_hand, collecting, deployment, experiments, versions
from registry.artifacts import ArtifactStore
from registry.clock import utc_now
from registry.db import Database
from registry.deployment import Act
from registry.errors import ConflictError
from registry.settings_privacy import RetentionSettings
from tests.registry.conftest import NOW
from tests.support.postgresql import while_held

Acts = Callable[[str], Act]
OLD, NEW = "old", "new"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "artifacts").as_uri(), cache=tmp_path / "cache")


@pytest.fixture
def world(shared: Database, act: Acts, store: ArtifactStore, tmp_path: Path) -> Database:
    """A version that has served and one that serves; the one before it is nothing to return to."""
    with shared.write() as session:
        for number, name in enumerate((OLD, "between", NEW)):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "content.txt").write_text(name)
            versions.register(
                session,
                version=name,
                workload="default",
                base_model="base",
                adapter_digest=store.publish(folder),
                recipe="r",
                now=NOW,
            )
            experiments.deploy(session, act("next"), workload="default", version=name)
            versions.get(session, name).deployed_at = NOW + timedelta(days=number)
    return shared


def collect(database: Database, store: ArtifactStore) -> int:
    return collecting.collect(
        database,
        store,
        RetentionSettings(keep_versions=1),
        now=utc_now() + timedelta(days=400),
        drop_touched=False,
    )


def promote(act: Acts) -> Callable[..., None]:
    return lambda session: by_hand.promote(session, act("back"), workload="default", version=OLD)


def test_what_is_being_promoted_keeps_its_adapter(
    world: Database, act: Acts, store: ArtifactStore
) -> None:
    while_held(world, promote(act), lambda: collect(world, store))
    with world.read() as session:
        champion = deployment.desired(session).champion
        assert champion is not None
        assert champion.version == OLD
        assert versions.get(session, OLD).adapter_deleted_at is None
    assert store.exists(champion.adapter_digest)


def test_what_was_collected_since_it_was_looked_at_is_not_promoted(
    world: Database, act: Acts, store: ArtifactStore
) -> None:
    with world.write() as session:
        seen = versions.get(session, OLD)
        assert collect(world, store) == 1
        assert not store.exists(seen.adapter_digest)
        with pytest.raises(ConflictError, match="its adapter was deleted"):
            promote(act)(session)
