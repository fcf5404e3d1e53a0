"""A training that an erasure asked for begins from what learned nothing of the erased."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows import rollout
from flows.context import Context
from flows.erasing import eraser
from flows.retrain import run_retrain
from registry import deployment, versions
from registry.settings import Settings
from registry.settings_privacy import PrivacySettings
from tests.flows.conftest import FakeClock
from tests.support.fake_learner import FakeLearner
from tests.support.usage import log_liked
from tests.support.versions import register_version


def with_policy(settings: Settings, policy: str) -> Settings:
    return settings.model_copy(
        update={
            "experiment": settings.experiment.model_copy(update={"enabled": False}),
            "privacy": PrivacySettings(erased_versions=policy),  # type: ignore[arg-type]
        }
    )


@pytest.mark.parametrize(("policy", "goes_on"), [("list", True), ("retrain", False)])
def test_the_champion_is_gone_on_from_only_where_that_is_the_policy(
    context: Context, clock: FakeClock, policy: str, goes_on: bool
) -> None:
    context = replace(context, settings=with_policy(context.settings, policy))
    log_liked(context, 100, at=context.clock())
    learner = FakeLearner([0.8, 0.9])
    first = run_retrain(context, learner, workload="default")
    report = eraser(context).erase("user-1", actor="test", approved_by="test")
    assert [found["name"] for found in report["versions"]] == [first.version]
    log_liked(context, 100, at=clock.move(hours=30), start=100)
    second = run_retrain(context, learner, workload="default")
    with context.database.read() as session:
        row = versions.get(session, second.version or "")
        desired = deployment.desired(session)
    assert row.parent_version == (first.version if goes_on else None)
    assert desired.champion is not None
    assert desired.champion.version == second.version
    eraser(context).carry_out_policy()
    named = eraser(context).read_report(report["erasure_id"])
    assert named["rows"]["user_interactions"] == 20


def test_what_was_trained_anew_after_an_erasure_waits_for_its_turn(
    context: Context, clock: FakeClock
) -> None:
    settings = with_policy(context.settings, "retrain")
    context = replace(context, settings=settings)
    log_liked(context, 100, at=context.clock())
    learner = FakeLearner([0.8, 0.9])
    first = run_retrain(context, learner, workload="default")
    eraser(context).erase("user-1", actor="test", approved_by="test")
    log_liked(context, 100, at=clock.move(hours=30), start=100)
    trial = settings.experiment.model_copy(update={"enabled": True})
    context = replace(context, settings=settings.model_copy(update={"experiment": trial}))
    register_version(context, "on-trial")
    with context.database.write() as session:
        rollout.begin(
            session,
            context.act("test", "try it"),
            workload="default",
            version="on-trial",
            settings=trial,
        )
    second = run_retrain(context, learner, workload="default")
    assert second.standing == "registered"
    with context.database.read() as session:
        champion = deployment.desired(session).champion
        assert champion is not None
        assert (champion.version, versions.get(session, second.version or "").parent_version) == (
            first.version,
            None,
        )
        assert rollout.waiting(session, workload="default") == [second.version]
