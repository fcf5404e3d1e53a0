"""Several challengers on trial at once, in the registry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from registry import arms, by_hand, deployment, experiments, itself, versions
from registry.db import Database
from registry.deployment import Act
from registry.errors import ConflictError
from registry.models import Experiment, ProductionPeriod
from registry.settings_decisions import ExperimentSettings
from registry.versions import Status
from tests.registry.conftest import NOW

pytestmark = pytest.mark.both_databases
Acts = Callable[[str], Act]


def start(database: Database, act: Acts, *names: str) -> Experiment:
    with database.write() as session:
        for name in names:
            versions.register(
                session,
                version=name,
                workload="default",
                base_model="base",
                adapter_digest=name[-1] * 64,
                recipe="r",
                now=NOW,
            )
        return experiments.start(
            session,
            act("try them"),
            workload="default",
            challenger=names[0],
            rivals=names[1:],
            share=0.3,
            settings={},
        )


def standing(database: Database) -> dict[str, str]:
    with database.read() as session:
        rows = versions.list_versions(session, workload="default")
        return {row.version: row.deployment_status for row in rows}


def on_trial(database: Database) -> list[str]:
    with database.read() as session:
        return [live.version for live in deployment.desired(session).challengers]


def test_all_are_live_and_one_of_them_wins(database: Database, act: Acts) -> None:
    trial = start(database, act, "v1", "v2", "v3")
    assert on_trial(database) == ["v1", "v2", "v3"]
    with database.write() as session:
        by_hand.promote(session, act("better"), workload="default", version="v2")
    assert standing(database) == {"v1": "retired", "v2": "champion", "v3": "retired"}
    assert on_trial(database) == []
    with database.read() as session:
        ended = {row.version: row.status for row in arms.of(session, trial.id)}
        assert experiments.get(session, trial.id).challenger == "v2"
    assert ended == {"v1": "retired", "v2": "promoted", "v3": "retired"}


def test_one_leaves_and_the_others_go_on(database: Database, act: Acts) -> None:
    trial = start(database, act, "v1", "v2", "v3")
    with database.write() as session:
        experiments.drop(
            session, act("slow"), experiment_id=trial.id, version="v1", status=Status.ROLLED_BACK
        )
    assert on_trial(database) == ["v2", "v3"]
    assert standing(database)["v1"] == "rolled_back"
    with database.read() as session:
        rows = session.exec(select(ProductionPeriod)).all()
        told = {row.generation: (row.challenger, row.rivals) for row in rows}
    assert told == {1: ("v1", ["v2", "v3"]), 2: ("v2", ["v3"])}
    with database.write() as session:
        by_hand.roll_back(session, act("enough"), workload="default")
    assert set(standing(database).values()) == {"rolled_back"}


def test_the_last_does_not_leave_but_ends_the_trial(database: Database, act: Acts) -> None:
    trial = start(database, act, "v1", "v2")

    def drop(version: str) -> None:
        with database.write() as session:
            experiments.drop(
                session, act("no"), experiment_id=trial.id, version=version, status=Status.RETIRED
            )

    drop("v2")
    with pytest.raises(ConflictError, match="the last on trial"):
        drop("v1")
    with pytest.raises(ConflictError, match="'v2' is not on trial"):
        drop("v2")


def test_a_winner_of_several_must_be_named_and_nobody_twice(database: Database, act: Acts) -> None:
    start(database, act, "v1", "v2")
    with pytest.raises(ConflictError, match="name one: v1, v2"), database.write() as session:
        by_hand.promote(session, act("better"), workload="default", version=None)
    with database.write() as session:
        by_hand.roll_back(session, act("enough"), workload="default")
    with pytest.raises(ConflictError, match="named twice"):
        start(database, act, "v3", "v3")


def test_none_of_them_can_be_deleted_from_under_the_trial(database: Database, act: Acts) -> None:
    start(database, act, "v1", "v2")
    for version in ("v1", "v2"):
        with pytest.raises(IntegrityError), database.write() as session:
            session.connection().execute(
                text(f"DELETE FROM model_versions WHERE version = '{version}'")
            )


def test_a_champion_against_itself_can_end_but_not_win(database: Database, act: Acts) -> None:
    settings = ExperimentSettings()
    with pytest.raises(ConflictError, match="base model"), database.write() as session:
        itself.begin(session, act("see"), workload="default", settings=settings)
    trial = start(database, act, "v1")
    with database.write() as session:
        experiments.promote(session, act("better"), experiment_id=trial.id)
    with database.write() as session:
        copy = itself.begin(session, act("see"), workload="default", settings=settings)
    with database.read() as session:
        state = deployment.desired(session)
    assert state.champion is not None
    assert state.challenger is not None
    assert state.challenger.version == "v1-again"
    assert state.challenger.adapter_digest == state.champion.adapter_digest
    with pytest.raises(ConflictError, match="against itself"), database.write() as session:
        experiments.promote(session, act("better"), experiment_id=copy.id)
    with database.write() as session:
        experiments.stop(session, act("seen"), experiment_id=copy.id, status=Status.RETIRED)
