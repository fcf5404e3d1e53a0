"""Trials under way in a backup: they go on as what they were, or end where a side is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from registry import audit, by_hand, deployment, experiments, holdback, versions
from registry.deployment import DesiredState
from registry.versions import Status
from tests.registry.test_backup import Make, make
from tests.support.backups import NOW, Installation, fill

__all__ = ["make"]

both_kinds = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])


def promoted_on_watch(world: Installation) -> None:
    """Version c is champion in the place of a, which some people keep."""
    fill(world)
    with world.database.write() as session:
        trial = by_hand.running(session, workload="default")
        trial.settings = {"holdback_share": 0.1}
        session.add(trial)
        experiments.promote(session, world.act("better"), experiment_id=trial.id)


def shadowed(world: Installation) -> None:
    """Version z answers copies beside champion a."""
    fill(world)
    with world.database.write() as session:
        by_hand.roll_back(session, world.act("enough"), workload="default")
        versions.register(
            session,
            version="z",
            workload="default",
            base_model="base",
            adapter_digest=world.publish("z"),
            recipe="r",
            now=NOW,
            parent_version=None,
            training_dataset_id="d",
        )
        experiments.start(
            session,
            world.act("unseen"),
            workload="default",
            challenger="z",
            share=0.0,
            settings={},
        )


def desired(world: Installation) -> DesiredState:
    with world.database.read() as session:
        return deployment.desired(session)


@both_kinds
@pytest.mark.parametrize("then", ["roll back", "confirm"])
def test_a_promotion_on_watch_stays_on_watch(
    make: Make, tmp_path: Path, kind: str, then: str
) -> None:
    world = make("home", kind)
    promoted_on_watch(world)
    before = desired(world)
    world.back_up(tmp_path / "backup")
    world.restore(tmp_path / "backup", force=True)
    after = desired(world)
    assert (after.mode, after.share, after.live) == ("holdback", 0.1, before.live)
    with world.database.write() as session:
        if then == "roll back":
            by_hand.roll_back(session, world.act("worse"), workload="default")
        else:
            state = deployment.lock(session, "default")
            holdback.confirm(session, world.act("as good"), state)
    ended = desired(world)
    assert ended.champion is not None
    assert ended.champion.version == ("a" if then == "roll back" else "c")
    assert (ended.mode, ended.experiment_id) == ("trial", None)


@both_kinds
def test_a_shadow_comes_before_people_as_a_challenger(
    make: Make, tmp_path: Path, kind: str
) -> None:
    world = make("home", kind)
    shadowed(world)
    world.back_up(tmp_path / "backup")
    world.restore(tmp_path / "backup", force=True)
    assert desired(world).mode == "shadow"
    with world.database.write() as session:
        trial = by_hand.running(session, workload="default").id
        experiments.ramp(session, world.act("seen"), experiment_id=trial, share=0.05)
        assert versions.get(session, "z").deployment_status == Status.CHALLENGER
        experiments.promote(session, world.act("better"), experiment_id=trial)
    champion = desired(world).champion
    assert champion is not None
    assert champion.version == "z"


@both_kinds
@pytest.mark.parametrize(
    ("lost", "champion", "standing"),
    [
        (["c"], "a", {"a": "champion", "c": "rolled_back"}),
        (["a"], "c", {"a": "retired", "c": "champion"}),
        (["a", "c"], None, {"a": "retired", "c": "rolled_back"}),
    ],
)
def test_a_promotion_on_watch_ends_where_an_adapter_is_lost(
    make: Make,
    tmp_path: Path,
    kind: str,
    lost: list[str],
    champion: str | None,
    standing: dict[str, str],
) -> None:
    world = make("home", kind)
    promoted_on_watch(world)
    with world.database.read() as session:
        digests = [versions.get(session, name).adapter_digest for name in lost]
    for digest in digests:
        shutil.rmtree(world.home / "artifacts" / digest)
    world.back_up(tmp_path / "backup")
    done = world.restore(tmp_path / "backup", force=True)
    assert sorted(done.repairs.withdrawn_versions) == lost
    state = desired(world)
    assert [version.version for version in state.live[:1]] == ([champion] if champion else [])
    assert not {version.version for version in state.live} & set(lost)
    with world.database.read() as session:
        assert experiments.running(session, workload="default") is None
        found = {name: versions.get(session, name).deployment_status for name in standing}
        assert audit.verify(session, key=world.keyring.derive("audit")) is None
    assert found == standing
