"""Versions that learned from somebody who is erased, and erasures that were cut off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import select

from flows.retention import run_retention
from flows.steps import PlainSteps
from registry import erasure, experiments, interactions, versions
from registry.clock import utc_now
from registry.interactions import Interaction
from registry.models import (
    Dataset,
    Erasure,
    ErasureEffect,
    UserInteraction,
)
from registry.settings import PrivacySettings
from serving.erasing import Eraser
from tests.serving.conftest import Installation
from tests.serving.erasures import (
    CANARY,
    CANARY_TEXT,
    CAROL,
    age_run_folders,
    ask,
    context_of,
    eraser,
    headers,
    learn,
    log,
    private,
    retain,
    router,
)
from tests.serving.router import Router
from tests.support.traces import files_with, tables_with

__all__ = ["private", "router"]


def with_policy(installation: Installation, policy: str) -> Installation:
    privacy = PrivacySettings(erased_versions=policy)  # type: ignore[arg-type]
    settings = installation.settings.model_copy(update={"privacy": privacy})
    return replace(installation, settings=settings)


@pytest.mark.parametrize("policy", ["list", "retire", "retrain"])
async def test_versions_that_learned_from_it_meet_the_policy(
    router: Router, private: Installation, adapters: dict[str, Path], policy: str
) -> None:
    await ask(router, headers(private, CAROL), CANARY_TEXT)
    version = learn(private, "one")
    clean = private.register(adapters["one"])
    private.deploy(clean)
    private.deploy(version)
    with private.database.write() as session:
        child = versions.register(
            session,
            version="child",
            workload="default",
            base_model="tiny",
            adapter_digest="1" * 64,
            recipe="tiny_cpu",
            now=utc_now(),
            parent_version=version,
        ).version
    installation = with_policy(private, policy)
    report = eraser(installation).erase(CAROL, actor="test", approved_by="test")
    assert [found["name"] for found in report["versions"]] == sorted([version, child])
    desired = private.desired()
    assert desired.champion is not None
    assert desired.champion.version == (clean if policy == "retire" else version)
    asked: list[str] = []
    run_retention(context_of(installation), steps=PlainSteps(), retrain=asked.append)
    run_retention(context_of(installation), steps=PlainSteps(), retrain=asked.append)
    assert asked == (["default"] if policy == "retrain" else [])
    with private.database.read() as session:
        assert erasure.untouched_ancestor(session, version) is None
        assert all(e.done_at is not None for e in session.exec(select(ErasureEffect)))


def test_a_promotion_that_some_people_are_held_back_from_is_taken_back_too(
    private: Installation, adapters: dict[str, Path]
) -> None:
    retiring = with_policy(private, "retire")
    log(private, "one")
    clean, version = private.register(adapters["one"]), learn(private, "one")
    private.deploy(clean)
    with private.database.write() as session:
        trial = experiments.start(
            session,
            private.act(),
            workload="default",
            challenger=version,
            share=0.5,
            settings={"holdback_share": 0.1},
        )
        experiments.promote(session, private.act(), experiment_id=trial.id)
    assert private.desired().mode == "holdback"
    eraser(retiring).erase(CAROL, actor="test", approved_by="test")
    desired = private.desired()
    assert desired.champion is not None
    assert (desired.champion.version, desired.experiment_id) == (clean, None)


def test_a_version_in_the_shadow_stays_there_while_the_one_before_the_champion_goes(
    private: Installation, adapters: dict[str, Path]
) -> None:
    retiring = with_policy(private, "retire")
    log(private, "one")
    version = learn(private, "one")
    champion, shadow = (private.register(adapters["one"]) for _ in range(2))
    private.deploy(version)
    private.deploy(champion)
    with private.database.write() as session:
        trial = experiments.start(
            session, private.act(), workload="default", challenger=shadow, share=0, settings={}
        )
    eraser(retiring).erase(CAROL, actor="test", approved_by="test")
    assert (private.desired().mode, private.desired().previous) == ("shadow", None)
    with private.database.write() as session:
        experiments.ramp(session, private.act(), experiment_id=trial.id, share=0.5)
        experiments.promote(session, private.act(), experiment_id=trial.id)


@pytest.mark.both_databases
def test_a_second_pass_over_an_erasure_takes_nothing_of_anybody_else(
    private: Installation,
) -> None:
    log(private, "one")
    with private.database.write() as session:
        nobody = Interaction(
            id="anonymous",
            created_at=utc_now(),
            input_text="a",
            structured_prompt="b",
            model_output="c",
        )
        interactions.log(session, [nobody], keyring=private.keyring)
    found = eraser(private)
    with private.database.write() as session:
        # As another process has it that began at the same time.
        row = erasure.begin(session, private.act(), CAROL, approved_by="test", policy="list")
    first = found.resume(row)
    again = found.resume(row)
    assert (again["erasure_id"], again["rows"]) == (first["erasure_id"], first["rows"])
    with private.database.read() as session:
        assert session.exec(select(UserInteraction.id)).all() == ["anonymous"]


def test_a_version_made_while_the_erasure_ran_is_found_later(private: Installation) -> None:
    log(private, "one")
    learn(private, "one")
    found = eraser(private)
    report = found.erase(CAROL, actor="test", approved_by="test")
    with private.database.write() as session:
        dataset = session.exec(select(Dataset)).one()
        assert dataset.files_deleted_at is not None
        versions.register(
            session,
            version="late",
            workload="default",
            base_model="tiny",
            adapter_digest="2" * 64,
            recipe="tiny_cpu",
            now=utc_now(),
            training_dataset_id=dataset.id,
        )
    retain(private)
    with private.database.read() as session:
        names = {e.name for e in erasure.effects(session, report["erasure_id"])}
    assert "late" in names


@pytest.mark.parametrize("step", ["_sweep_files", "delete_datasets", "carry_out_policy", "scrub"])
def test_an_erasure_that_was_cut_off_is_finished_by_retention(
    private: Installation, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    log(private, "one")
    learn(private, "one")
    with monkeypatch.context() as patch:
        patch.setattr(Eraser, step, _cut_off)
        with pytest.raises(KeyboardInterrupt):
            eraser(private).erase(CAROL, actor="test", approved_by="test")
    age_run_folders(private.settings.home)
    retain(private)
    assert tables_with(private.database, CANARY) == []
    assert files_with(private.settings.home, CANARY) == []
    with private.database.read() as session:
        row = session.exec(select(Erasure)).one()
        assert row.completed_at is not None
        assert row.user_id is None
        assert row.scrubbed_at is not None


def _cut_off(*_arguments: object, **_named: object) -> None:
    raise KeyboardInterrupt
