"""Retraining, from usage to a version with its standing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlmodel import select

from flows import rollout
from flows.context import Context
from flows.each_workload import End
from flows.errors import RefusedError
from flows.registration import RetrainResult
from flows.retrain import retrain_each, run_retrain
from flows.steps import PlainSteps
from registry import deployment, experiments, interactions, runs, versions
from registry.errors import ConflictError
from registry.interactions import Feedback
from registry.models import ModelVersion, RetrainRun, TrainingData
from tests.flows.conftest import FakeClock
from tests.support.fake_learner import FakeLearner
from tests.support.usage import log_liked
from tests.support.versions import register_version

pytestmark = pytest.mark.both_databases


def retrain(context: Context, learner: FakeLearner, *, force: bool = False) -> RetrainResult:
    return run_retrain(context, learner, workload="default", trigger="sample_count", force=force)


def all_runs(context: Context) -> list[RetrainRun]:
    with context.database.read() as session:
        return list(session.exec(select(RetrainRun).order_by("started_at", "id")))


def test_a_better_version_becomes_challenger_at_the_first_share(context: Context) -> None:
    log_liked(context, 100, at=context.clock())
    result = retrain(context, FakeLearner([0.8]))
    assert (result.status, result.standing) == ("succeeded", "challenger")
    with context.database.read() as session:
        desired = deployment.desired(session)
        row = versions.get(session, result.version or "")
        experiment = experiments.running(session, workload="default")
    assert desired.challenger is not None
    assert (desired.challenger.version, desired.share) == (result.version, 0.1)
    assert row.training_dataset_id == result.dataset_id
    assert "accuracy 0.500 → 0.800" in (row.status_reason or "")
    assert row.evaluation["gate"]["passed"] is True
    assert experiment is not None
    assert experiment.settings["min_hours"] == 48
    run = all_runs(context)[0]
    assert (run.status, run.version, run.trigger) == ("succeeded", result.version, "sample_count")


def test_feedback_that_is_held_back_is_not_learned_from(context: Context) -> None:
    log_liked(context, 100, at=context.clock())
    pasted = {f"liked-{number:06}" for number in range(5)}
    with context.database.write() as session:
        for name in sorted(pasted):
            said = Feedback(interaction_id=name, text="What a wonderful, useful answer!")
            interactions.add_feedback(session, said, now=context.clock(), new_id=context.new_id)
    retrain(context, FakeLearner([0.8]))
    with context.database.read() as session:
        learned = set(session.exec(select(TrainingData.source_interaction_id)))
    assert (len(learned), learned & pasted) == (95, set())


def test_the_published_adapter_carries_its_manifest(context: Context) -> None:
    log_liked(context, 100, at=context.clock())
    result = retrain(context, FakeLearner([0.8]))
    with context.database.read() as session:
        row = versions.get(session, result.version or "")
    manifest = json.loads((context.store.fetch(row.adapter_digest) / "manifest.json").read_text())
    assert manifest["base_model"] == {"id": "fake/base", "digest": "sha256:fake"}
    assert manifest["metrics"]["accuracy"] == 0.8
    assert manifest["created_at"] == "2026-01-14T12:00:00+00:00"
    assert {"torch", "transformers", "peft"} <= set(manifest["libraries"])


def test_a_worse_version_is_rejected_and_never_served(context: Context) -> None:
    log_liked(context, 100, at=context.clock())
    result = retrain(context, FakeLearner([0.1]))
    assert (result.status, result.standing) == ("rejected", "rejected")
    assert "accuracy 0.500 → 0.100" in result.reason
    with context.database.read() as session:
        assert deployment.desired(session).live == ()


def test_too_little_data_is_refused_with_the_numbers(context: Context) -> None:
    log_liked(context, 7, at=context.clock())
    result = retrain(context, FakeLearner([]))
    assert result.status == "refused"
    # One of the seven is kept for the test split.
    assert "6 samples, at least 20 are needed" in result.reason
    assert [(run.status, run.reason) for run in all_runs(context)] == [("refused", result.reason)]


def test_the_same_data_is_not_learned_twice_unless_forced(
    context: Context, clock: FakeClock
) -> None:
    log_liked(context, 100, at=context.clock())
    learner = FakeLearner([0.1, 0.1])
    retrain(context, learner)
    clock.move(hours=1)
    again = retrain(context, learner)
    assert again.status == "refused"
    assert "nothing new to learn" in again.reason
    assert retrain(context, learner, force=True).status == "rejected"


def test_while_a_trial_runs_the_next_version_waits_as_registered(
    context: Context, clock: FakeClock
) -> None:
    log_liked(context, 100, at=context.clock())
    first = retrain(context, FakeLearner([0.8]))
    log_liked(context, 100, at=clock.move(hours=30), start=100)
    second = retrain(context, FakeLearner([0.9]))
    assert (second.status, second.standing) == ("succeeded", "registered")
    assert f"'{first.version}' is on trial" in second.reason


def test_without_experiments_it_becomes_champion_and_the_next_goes_on_from_it(
    context: Context, clock: FakeClock
) -> None:
    settings = context.settings
    off = settings.experiment.model_copy(update={"enabled": False})
    context = replace(context, settings=settings.model_copy(update={"experiment": off}))
    log_liked(context, 100, at=context.clock())
    learner = FakeLearner([0.8, 0.9])
    first = retrain(context, learner)
    assert first.standing == "champion"
    log_liked(context, 100, at=clock.move(hours=30), start=100)
    second = retrain(context, learner)
    with context.database.read() as session:
        row = versions.get(session, second.version or "")
        digest = versions.get(session, first.version or "").adapter_digest
    assert row.parent_version == first.version
    assert "accuracy 0.800 → 0.900" in second.reason
    assert learner.parents == [None, context.store.fetch(digest)]


def test_a_failure_marks_the_run_and_registers_nothing(context: Context) -> None:
    log_liked(context, 100, at=context.clock())

    def fail() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        retrain(context, FakeLearner([], during_training=fail))
    assert [(run.status, run.reason) for run in all_runs(context)] == [("failed", "out of memory")]
    with context.database.read() as session:
        assert session.exec(select(ModelVersion)).all() == []


def test_a_cancelled_run_does_not_stay_running(context: Context) -> None:
    log_liked(context, 100, at=context.clock())

    def cancel() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain(context, FakeLearner([], during_training=cancel))
    assert [run.status for run in all_runs(context)] == ["failed"]


def test_a_second_run_at_the_same_time_is_refused_by_the_database(context: Context) -> None:
    log_liked(context, 100, at=context.clock())

    def start_another() -> None:
        with pytest.raises(ConflictError, match="already training"):
            retrain(context, FakeLearner([]))

    assert retrain(context, FakeLearner([0.8], during_training=start_another)).version
    assert [run.status for run in all_runs(context)] == ["succeeded"]


def test_a_dead_run_is_reaped_and_the_next_one_goes_ahead(
    context: Context, clock: FakeClock
) -> None:
    log_liked(context, 100, at=context.clock())
    with context.database.write() as session:
        runs.start(session, run_id="dead", workload="default", trigger="x", now=clock())
    clock.move(minutes=5)
    assert retrain(context, FakeLearner([0.8])).status == "succeeded"
    assert "its process died" in (all_runs(context)[0].reason or "")


def test_a_run_that_was_reaped_meanwhile_registers_nothing(
    context: Context, clock: FakeClock
) -> None:
    log_liked(context, 100, at=context.clock())

    def hang() -> None:
        with context.database.write() as session:
            assert runs.reap(session, now=clock() + timedelta(hours=1), stale_after_s=1)

    with pytest.raises(ConflictError, match="already failed"):
        retrain(context, FakeLearner([0.8], during_training=hang))
    with context.database.read() as session:
        assert session.exec(select(ModelVersion)).all() == []
        assert deployment.desired(session).live == ()
    assert "its process died" in (all_runs(context)[0].reason or "")


def test_a_dry_run_prepares_the_data_and_starts_no_run(context: Context) -> None:
    log_liked(context, 100, at=context.clock())
    result = run_retrain(context, FakeLearner([]), workload="default", dry_run=True)
    assert result.status == "prepared"
    assert result.dataset_id is not None
    assert all_runs(context) == []


def test_nothing_is_left_in_the_runs_folder(context: Context) -> None:
    log_liked(context, 100, at=context.clock())
    retrain(context, FakeLearner([0.8]))
    run_retrain(context, FakeLearner([]), workload="default", dry_run=True)
    assert list(context.folder("runs").iterdir()) == []


@pytest.mark.parametrize("enabled", [False, True])
def test_a_champion_that_came_while_it_was_trained_is_not_replaced(
    context: Context, enabled: bool
) -> None:
    settings = context.settings
    changed = settings.experiment.model_copy(update={"enabled": enabled})
    context = replace(context, settings=settings.model_copy(update={"experiment": changed}))
    log_liked(context, 100, at=context.clock())
    register_version(context, "by-hand")

    def deploy() -> None:
        with context.database.write() as session:
            act = context.act("test", "better")
            experiments.deploy(session, act, workload="default", version="by-hand")

    result = retrain(context, FakeLearner([0.8], during_training=deploy))
    assert (result.status, result.standing) == ("succeeded", "registered")
    assert "while the base model served, and now 'by-hand' does" in result.reason
    with context.database.read() as session:
        assert rollout.waiting(session, workload="default") == []


def test_each_workload_is_trained_unless_it_is_training_already(context: Context) -> None:
    with context.database.write() as session:
        for name in ("busy", "support"):
            deployment.add_workload(session, name, now=context.clock())
        runs.start(session, run_id="r", workload="busy", trigger="x", now=context.clock())
    log_liked(context, 100, at=context.clock(), workload="support")
    end = retrain_each(context, FakeLearner([0.8]), None, steps_for=lambda _: PlainSteps())
    default, busy, support = end.message.splitlines()
    assert default.startswith("default: too little data: 0 samples")
    assert busy.startswith("busy: workload 'busy' is already training (run r")
    assert support.startswith("support: it passed the gate")
    assert end.name == "Completed"
    with context.database.read() as session:
        assert deployment.desired(session, "support").challenger is not None


def test_of_one_workload_the_end_is_its_own(context: Context) -> None:
    end = retrain_each(context, FakeLearner([]), None, steps_for=lambda _: PlainSteps())
    assert end == End(
        "too little data: 0 samples, at least 20 are needed (setting training.min_samples)",
        "Refused",
    )


def test_what_was_trained_since_it_was_asked_for_is_not_trained_again(
    context: Context, clock: FakeClock
) -> None:
    log_liked(context, 100, at=context.clock())
    asked_at = context.clock()
    clock.move(hours=1)
    learner = FakeLearner([0.8, 0.9])
    assert retrain(context, learner).status == "succeeded"
    log_liked(context, 100, at=clock.move(hours=1), start=100)
    with pytest.raises(RefusedError, match="has trained since this was asked for"):
        run_retrain(context, learner, workload="default", asked_at=asked_at)
    assert len(all_runs(context)) == 1
    later = run_retrain(context, learner, workload="default", asked_at=context.clock())
    assert later.status == "succeeded"
