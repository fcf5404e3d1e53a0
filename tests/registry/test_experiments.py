from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlmodel import select

from registry import audit, deployment, experiments, versions
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import Act
from registry.errors import ConflictError
from registry.models import ProductionPeriod
from registry.versions import Status
from tests.registry.conftest import NOW
from tests.registry.test_versions import add

Acts = Callable[[str], Act]


def start(database: Database, act: Acts, challenger: str) -> str:
    with database.write() as session:
        return experiments.start(
            session, act("new"), workload="default", challenger=challenger, share=0.1, settings={}
        ).id


def status(database: Database, version: str) -> str:
    with database.read() as session:
        return versions.get(session, version).deployment_status


def test_a_trial_is_desired_state_with_a_new_generation(database: Database, act: Acts) -> None:
    trial = start(database, act, add(database, "v1"))
    with database.read() as session:
        state = deployment.desired(session)
    assert (state.generation, state.share, state.experiment_id) == (1, 0.1, trial)
    assert state.challenger is not None
    assert state.challenger.version == "v1"


def test_promotion_keeps_the_old_champion_loaded(database: Database, act: Acts) -> None:
    for name in ("v1", "v2"):
        trial = start(database, act, add(database, name))
        with database.write() as session:
            experiments.promote(session, act("better"), experiment_id=trial)
    with database.read() as session:
        state = deployment.desired(session)
    assert [live.version for live in state.live] == ["v2", "v1"]
    assert status(database, "v1") == Status.RETIRED


def test_rollback_returns_to_the_previous_champion_and_then_to_the_base(
    database: Database, act: Acts
) -> None:
    for name in ("v1", "v2"):
        trial = start(database, act, add(database, name))
        with database.write() as session:
            experiments.promote(session, act("better"), experiment_id=trial)
    with database.write() as session:
        experiments.roll_back_champion(session, act("worse"), workload="default")
    with database.read() as session:
        champion = deployment.desired(session).champion
    assert champion is not None
    assert champion.version == "v1"
    with database.write() as session:
        experiments.roll_back_champion(session, act("worse"), workload="default")
    with database.read() as session:
        assert deployment.desired(session).champion is None
    assert status(database, "v2") == Status.ROLLED_BACK


def test_the_champion_cannot_be_promoted_again_and_the_one_before_it_stays(
    database: Database, act: Acts
) -> None:
    for name in ("v1", "v2"):
        add(database, name)
        with database.write() as session:
            experiments.deploy(session, act("now"), workload="default", version=name)
    with pytest.raises(ConflictError, match="already"), database.write() as session:
        experiments.deploy(session, act("twice"), workload="default", version="v2")
    with database.write() as session:
        experiments.roll_back_champion(session, act("worse"), workload="default")
        champion = deployment.desired(session).champion
    assert champion is not None
    assert champion.version == "v1"


def test_an_act_at_a_generation_that_has_passed_is_refused(database: Database, act: Acts) -> None:
    add(database, "v1")
    with database.write() as session:
        deployment.expect(session, "default", generation=0)
        experiments.deploy(session, act("now"), workload="default", version="v1")
        deployment.expect(session, "default", generation=None)
        with pytest.raises(ConflictError, match="generation 1, not 0"):
            deployment.expect(session, "default", generation=0)


def test_a_second_trial_at_once_is_refused(database: Database, act: Acts) -> None:
    start(database, act, add(database, "v1"))
    add(database, "v2")
    with pytest.raises(ConflictError, match="already tries 'v1'"):
        start(database, act, "v2")
    assert status(database, "v2") == Status.REGISTERED


def test_a_trial_ends_once(database: Database, act: Acts) -> None:
    trial = start(database, act, add(database, "v1"))
    with database.write() as session:
        experiments.stop(session, act("slow"), experiment_id=trial, status=Status.ROLLED_BACK)
    with pytest.raises(ConflictError, match="rolled_back"), database.write() as session:
        experiments.promote(session, act("late"), experiment_id=trial)
    with database.read() as session:
        assert deployment.desired(session).champion is None


def test_a_change_that_fails_leaves_nothing_behind(database: Database, act: Acts) -> None:
    trial = start(database, act, add(database, "v1"))

    def promote_and_crash() -> None:
        with database.write() as session:
            experiments.promote(session, act("better"), experiment_id=trial)
            raise RuntimeError("crash before the commit")

    with pytest.raises(RuntimeError):
        promote_and_crash()
    with database.read() as session:
        assert deployment.desired(session).champion is None
        assert deployment.desired(session).generation == 1
    assert status(database, "v1") == Status.CHALLENGER


def test_history_and_audit_tell_every_change(
    database: Database, act: Acts, keyring: Keyring
) -> None:
    trial = start(database, act, add(database, "v1"))
    with database.write() as session:
        experiments.ramp(session, act("well"), experiment_id=trial, share=0.5)
        experiments.promote(session, act("better"), experiment_id=trial)
    with database.read() as session:
        periods = session.exec(
            select(ProductionPeriod).order_by(ProductionPeriod.generation)  # type: ignore[arg-type]
        ).all()
        assert audit.verify(session, key=keyring.derive("audit")) is None
    assert [(p.version, p.share, p.reason) for p in periods] == [
        (None, 0.1, "new"),
        (None, 0.5, "well"),
        ("v1", 0.0, "better"),
    ]
    assert [p.to_at is None for p in periods] == [False, False, True]


def test_observed_means_every_live_replica_has_followed(database: Database) -> None:
    def observed(generation: int) -> bool:
        with database.read() as session:
            return deployment.is_observed(
                session, workload="default", generation=generation, now=NOW
            )

    def report(replica: str, generation: int, *, at: datetime = NOW) -> None:
        with database.write() as session:
            deployment.report(
                session,
                replica_id=replica,
                kind="router",
                generations={"default": generation},
                versions={},
                refused={},
                now=at,
            )

    assert not observed(0)
    report("router-1", 2)
    report("model-1", 1)
    # Left by one that has died, before the clock was set back.
    report("model-0", 0, at=NOW + timedelta(hours=1))
    assert observed(1)
    assert not observed(2)
    with database.write() as session:
        deployment.forget_replica(session, "model-1")
    assert observed(2)
