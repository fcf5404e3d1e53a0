"""What learned from somebody who is erased leaves every trial that it is part of."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry import deployment, erased_versions, experiments, versions
from registry.db import Database
from registry.deployment import Act
from registry.errors import ConflictError
from registry.models import Erasure, ErasureEffect, Experiment
from tests.registry.conftest import NOW
from tests.support.postgresql import wait_until_blocked

Acts = Callable[[str], Act]


def register(database: Database, *names: str, workload: str = "default") -> None:
    with database.write() as session:
        for name in names:
            versions.register(
                session,
                version=name,
                workload=workload,
                base_model="base",
                adapter_digest=name,
                recipe="r",
                now=NOW,
            )


def try_out(database: Database, act: Acts, *names: str, share: float = 0.0) -> Experiment:
    register(database, *names)
    with database.write() as session:
        return experiments.start(
            session,
            act("try them"),
            workload="default",
            challenger=names[0],
            rivals=names[1:],
            share=share,
            settings={},
        )


def touch(database: Database, *names: str, workload: str = "default") -> None:
    """Somebody is erased whom these versions learned from, under the policy `retire`."""
    with database.write() as session:
        if session.get(Erasure, "e") is None:
            session.add(
                Erasure(
                    id="e",
                    subject="s",
                    requested_by="t",
                    approved_by="t",
                    policy="retire",
                    requested_at=NOW,
                )
            )
            session.flush()
        for name in names:
            session.add(
                ErasureEffect(
                    erasure_id="e", kind="version", name=name, workload=workload, action="retired"
                )
            )


def carry_out(database: Database, act: Acts) -> list[str]:
    with database.write() as session:
        return list(erased_versions.carry_out(session, act("erased")))


def standing(database: Database, *names: str) -> list[str]:
    with database.read() as session:
        return [versions.get(session, name).deployment_status for name in names]


def on_trial(database: Database) -> list[str]:
    with database.read() as session:
        return [live.version for live in deployment.desired(session).challengers]


def test_a_version_in_the_shadow_leaves_its_trial_and_cannot_win_it(
    database: Database, act: Acts
) -> None:
    trial = try_out(database, act, "v1")
    touch(database, "v1")
    assert carry_out(database, act) == ["v1"]
    assert standing(database, "v1") == ["retired"]
    with database.write() as session:
        assert deployment.desired(session).experiment_id is None
        with pytest.raises(ConflictError, match="not running"):
            experiments.ramp(session, act("more"), experiment_id=trial.id, share=0.05)
        assert experiments.get(session, trial.id).status == "retired"


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_of_several_on_trial_only_those_leave_that_learned_from_it(
    database: Database, act: Acts, share: float
) -> None:
    trial = try_out(database, act, "v1", "v2", "v3", share=share)
    touch(database, "v1", "v3")
    assert carry_out(database, act) == ["v1", "v3"]
    assert on_trial(database) == ["v2"]
    assert standing(database, "v1", "v3") == ["retired", "retired"]
    with database.write() as session:
        experiments.ramp(session, act("more"), experiment_id=trial.id, share=0.5)
        experiments.promote(session, act("better"), experiment_id=trial.id)
    assert standing(database, "v2") == ["champion"]


def test_a_trial_of_which_all_learned_from_it_ends(database: Database, act: Acts) -> None:
    try_out(database, act, "v1", "v2")
    touch(database, "v1", "v2")
    assert carry_out(database, act) == ["v1", "v2"]
    assert on_trial(database) == []
    assert standing(database, "v1", "v2") == ["retired", "retired"]


def test_versions_of_several_workloads_go_while_another_is_changed(
    shared: Database, act: Acts
) -> None:
    with shared.write() as session:
        deployment.add_workload(session, "other", now=NOW)
    for name, workload in (("v1", "default"), ("v2", "other"), ("v3", "other")):
        register(shared, name, workload=workload)
    with shared.write() as session:
        experiments.deploy(session, act("first"), workload="default", version="v1")
        experiments.deploy(session, act("first"), workload="other", version="v2")
    touch(shared, "v1")
    touch(shared, "v2", workload="other")
    with ThreadPoolExecutor(1) as pool:
        with shared.write() as session:
            deployment.expect(session, "other", generation=1)
            going = pool.submit(carry_out, shared, act)
            wait_until_blocked(shared)
            experiments.deploy(session, act("better"), workload="other", version="v3")
        assert going.result() == ["v1", "v2"]
    with shared.read() as session:
        champions = [deployment.desired(session, name).champion for name in ("default", "other")]
    assert [found and found.version for found in champions] == [None, "v3"]


def test_what_was_only_registered_is_never_tried(database: Database, act: Acts) -> None:
    register(database, "v1")
    touch(database, "v1")
    assert carry_out(database, act) == ["v1"]
    assert standing(database, "v1") == ["retired"]
