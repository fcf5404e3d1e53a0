"""A trial from its shadow phase to the end of its hold-back, and what may go wrong on the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from flows import rollout
from flows.context import Context
from flows.decisions.experiment import Action
from flows.decisions.replay import decide_again, is_same
from flows.experiment import look
from flows.reports.experiment_page import write_page
from flows.steering import Act, steer
from registry import deployment, experiments, itself, versions
from registry.errors import ConflictError
from registry.models import Experiment, ExperimentDecision, ProductionPeriod
from registry.settings_decisions import ExperimentSettings, Step
from tests.flows.conftest import FakeClock
from tests.support.usage import log_trial
from tests.support.versions import register_version

SETTINGS = ExperimentSettings(settle_hours=0, split_alpha=1e-300, holdback_share=0.1)


def begin(
    context: Context, version: str = "v1", settings: ExperimentSettings = SETTINGS
) -> Experiment:
    register_version(context, version)
    with context.database.write() as session:
        return rollout.begin(
            session,
            context.act("test", "try it"),
            workload="default",
            version=version,
            settings=settings,
        )


def log_arms(context: Context, experiment: Experiment, *, good: bool, control: str) -> None:
    """The challenger of a trial against the base, or `control` "champion" of a hold-back."""
    at = context.clock()
    log_trial(context, experiment.id, role="default", number=300, good=not good, at=at)
    log_trial(context, experiment.id, role=control, number=150, good=good, at=at, version="v1")


def promoted(context: Context, clock: FakeClock) -> Experiment:
    """A trial that was won; the hold-back that follows."""
    log_arms(context, begin(context), good=True, control="challenger")
    clock.move(hours=49)
    assert look(context, "default").action is Action.PROMOTE
    with context.database.read() as session:
        found = experiments.running(session, workload="default")
    assert found is not None
    return found


def state(context: Context) -> deployment.DesiredState:
    with context.database.read() as session:
        return deployment.desired(session)


def test_after_a_promotion_some_keep_what_was_before_and_then_nobody(
    context: Context, clock: FakeClock
) -> None:
    holdback = promoted(context, clock)
    during = state(context)
    assert (holdback.kind, during.mode, during.share) == ("holdback", "holdback", 0.1)
    assert during.champion is not None
    assert (during.champion.version, during.challenger) == ("v1", None)
    log_arms(context, holdback, good=True, control="champion")
    clock.move(hours=71)
    assert look(context, "default").action is Action.WAIT
    clock.move(hours=2)
    assert look(context, "default").action is Action.CONFIRM
    assert (state(context).share, state(context).experiment_id) == (0.0, None)


def test_a_promotion_that_turns_out_bad_is_taken_back(context: Context, clock: FakeClock) -> None:
    holdback = promoted(context, clock)
    log_arms(context, holdback, good=False, control="champion")
    clock.move(hours=1)
    assert look(context, "default").action is Action.ROLL_BACK
    assert state(context).champion is None
    with context.database.read() as session:
        assert versions.get(session, "v1").deployment_status == "rolled_back"


def test_the_next_trial_ends_a_hold_back(context: Context, clock: FakeClock) -> None:
    holdback = promoted(context, clock)
    begin(context, "v2")
    with context.database.read() as session:
        assert experiments.get(session, holdback.id).status == "promoted"
    found = state(context)
    assert found.champion is not None
    assert found.challenger is not None
    assert (found.champion.version, found.challenger.version) == ("v1", "v2")


def test_rolling_back_by_hand_undoes_a_promotion_on_watch(
    context: Context, clock: FakeClock
) -> None:
    promoted(context, clock)
    assert steer(context, Act.ROLL_BACK, workload="default", actor="t", reason="no").live == ()


def test_after_a_rollback_the_next_version_waits_its_time_and_is_then_tried(
    context: Context, clock: FakeClock
) -> None:
    begin(context)
    steer(context, Act.ROLL_BACK, workload="default", actor="t", reason="no")
    register_version(context, "v2")
    held = look(context, "default")
    assert held.action is Action.WAIT
    assert held.reasons[0].startswith("'v2' waits: the last one was rolled back")
    clock.move(hours=24)
    assert look(context, "default").action is Action.START
    assert state(context).share == 0.1


def test_a_version_of_another_champion_is_not_tried(context: Context) -> None:
    register_version(context, "v1")
    register_version(context, "v2", parent="v1")
    assert look(context, "default").reasons == ("no experiment is running",)


def test_a_shadow_meets_people_only_when_it_has_done_well(
    context: Context, clock: FakeClock
) -> None:
    plan = SETTINGS.model_copy(update={"plan": (Step(share=0, min_answers=50), Step(share=0.2))})
    experiment = begin(context, settings=plan)
    assert (state(context).mode, state(context).share) == ("shadow", 0.0)
    at = context.clock()
    log_trial(context, experiment.id, role="default", number=100, good=True, at=at)
    assert look(context, "default").action is Action.WAIT
    log_trial(context, experiment.id, role="shadow", number=60, good=True, at=at, version="v1")
    clock.move(hours=1)
    assert look(context, "default").action is Action.RAMP
    assert (state(context).mode, state(context).share) == ("trial", 0.2)


def test_a_shadow_that_scores_worse_never_meets_people(context: Context, clock: FakeClock) -> None:
    plan = SETTINGS.model_copy(update={"plan": (Step(share=0, min_answers=500), Step(share=0.2))})
    experiment = begin(context, settings=plan)
    at = context.clock()
    log_trial(context, experiment.id, role="default", number=100, good=True, at=at)
    log_trial(context, experiment.id, role="shadow", number=60, good=False, at=at, version="v1")
    clock.move(hours=1)
    assert look(context, "default").action is Action.ROLL_BACK
    with context.database.read() as session:
        shares = [row.share for row in session.exec(select(ProductionPeriod))]
    assert set(shares) == {0.0}


def test_a_frozen_trial_changes_only_by_a_guardrail(context: Context, clock: FakeClock) -> None:
    experiment = begin(context)
    log_arms(context, experiment, good=True, control="challenger")
    clock.move(hours=49)
    steer(context, Act.FREEZE, workload="default", actor="t", reason="a holiday")
    assert look(context, "default").reasons == ("frozen by hand: only a guardrail can end it",)
    with pytest.raises(ConflictError, match="frozen already"):
        steer(context, Act.FREEZE, workload="default", actor="t", reason="again")
    steer(context, Act.UNFREEZE, workload="default", actor="t", reason="back")
    assert look(context, "default").action is Action.PROMOTE


def test_a_crash_between_decision_and_switch_leaves_neither(
    context: Context, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_arms(context, begin(context), good=True, control="challenger")
    clock.move(hours=49)

    def killed(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(experiments, "promote", killed)
        with pytest.raises(KeyboardInterrupt):
            look(context, "default")
    with context.database.read() as session:
        assert session.exec(select(ExperimentDecision)).all() == []
    assert state(context).champion is None
    assert look(context, "default").action is Action.PROMOTE
    with context.database.read() as session:
        kept = session.exec(select(ExperimentDecision.action)).all()
    assert kept == ["promote"]


def test_a_clock_that_steps_back_does_not_turn_history_round(
    context: Context, clock: FakeClock
) -> None:
    experiment = begin(context)
    log_arms(context, experiment, good=True, control="challenger")
    clock.move(hours=10)
    assert look(context, "default").action is Action.RAMP
    clock.now -= timedelta(hours=12)
    look(context, "default")
    clock.move(hours=60)
    assert look(context, "default").action is Action.PROMOTE
    with context.database.read() as session:
        looks = experiments.decisions(session, experiment_id=experiment.id)
        periods = session.exec(
            select(ProductionPeriod).order_by(ProductionPeriod.generation)  # type: ignore[arg-type]
        ).all()
    assert [row.action for row in looks].count("promote") == 1
    assert all(row.facts["hours"] >= 0 for row in looks)
    assert all(a.from_at <= b.from_at for a, b in pairwise(periods))


def test_a_challenger_cannot_be_deleted_from_under_its_trial(context: Context) -> None:
    begin(context)
    with pytest.raises(IntegrityError), context.database.write() as session:
        session.connection().execute(text("DELETE FROM model_versions WHERE version = 'v1'"))


def test_a_challenger_whose_files_are_gone_is_rolled_back(context: Context) -> None:
    begin(context)
    with context.database.write() as session:
        deployment.report(
            session,
            replica_id="r",
            kind="model",
            generations={"default": 1},
            versions={},
            refused={"v1": "its adapter is missing"},
            now=context.clock(),
        )
    decision = look(context, "default")
    assert decision.action is Action.ROLL_BACK
    assert decision.reasons == ("'v1' cannot be served: its adapter is missing",)


def test_every_kept_decision_is_made_again_the_same(context: Context, clock: FakeClock) -> None:
    experiment = begin(context)
    log_arms(context, experiment, good=True, control="challenger")
    for hours in (1, 20, 28):
        clock.move(hours=hours)
        look(context, "default")
    with context.database.read() as session:
        looks = experiments.decisions(session, experiment_id=experiment.id)
    assert [row.action for row in looks] == ["ramp", "wait", "promote"]
    for row in looks:
        again = decide_again(row.facts, SETTINGS)
        assert again is not None
        assert is_same(
            again, action=row.action, reasons=row.reasons["reasons"], row_facts=row.facts
        )


def test_the_page_tells_the_decision_in_a_sentence(context: Context, clock: FakeClock) -> None:
    experiment = begin(context)
    log_arms(context, experiment, good=True, control="challenger")
    for hours in (1, 48):
        clock.move(hours=hours)
        look(context, "default")
    page = write_page(context, experiment.id)
    assert page.sentence.startswith("The new version is better beyond chance")
    assert page.plot is not None
    assert page.plot.startswith("data:image/png;base64,")
    content = page.path.read_text("utf-8")
    assert page.sentence in content
    assert content.count("<img") == 3


def begin_several(context: Context) -> Experiment:
    for version in ("v1", "v2", "v3"):
        register_version(context, version)
    several = context.settings.experiment.model_copy(
        update={
            "max_challengers": 3,
            **SETTINGS.model_dump(include={"settle_hours", "split_alpha"}),
        }
    )
    waiting = replace(context, settings=context.settings.model_copy(update={"experiment": several}))
    assert look(waiting, "default").action is Action.START
    with context.database.read() as session:
        found = experiments.running(session, workload="default")
    assert found is not None
    return found


def test_versions_that_wait_are_tried_together_and_judged_apart(
    context: Context, clock: FakeClock
) -> None:
    experiment = begin_several(context)
    at = context.clock()
    log_trial(context, experiment.id, role="default", number=300, good=False, at=at)
    for version, good in (("v1", False), ("v2", True), ("v3", False)):
        log_trial(
            context,
            f"{experiment.id}",
            role="challenger",
            number=150,
            good=good,
            at=at + timedelta(milliseconds=int(version[1])),
            version=version,
        )
    clock.move(hours=49)
    decision = look(context, "default")
    assert decision.action is Action.PROMOTE
    assert [reason.split(":")[0] for reason in decision.reasons] == [
        "'v3', retire",
        "'v2', promote",
        "'v1', retire",
    ]
    found = state(context)
    assert found.champion is not None
    assert (found.champion.version, found.mode) == ("v2", "holdback")
    with context.database.read() as session:
        looks = experiments.decisions(session, experiment_id=experiment.id)
    settings = ExperimentSettings.model_validate(experiment.settings)
    assert {row.version for row in looks} == {"v1", "v2", "v3"}
    for row in looks:
        again = decide_again(row.facts, settings)
        assert again is not None
        assert is_same(
            again, action=row.action, reasons=row.reasons["reasons"], row_facts=row.facts
        )
    page = write_page(context, experiment.id)
    assert "v2: The new version is better beyond chance" in page.sentence


def test_one_of_several_that_cannot_be_served_leaves_alone(context: Context) -> None:
    begin_several(context)
    with context.database.write() as session:
        deployment.report(
            session,
            replica_id="r",
            kind="model",
            generations={"default": 1},
            versions={},
            refused={"v2": "its adapter is missing"},
            now=context.clock(),
        )
    assert look(context, "default").action is Action.ROLL_BACK
    assert [live.version for live in state(context).challengers] == ["v3", "v1"]


def test_a_champion_against_itself_is_never_promoted(context: Context, clock: FakeClock) -> None:
    register_version(context, "v1")
    with context.database.write() as session:
        act = context.act("test", "deploy")
        experiments.deploy(session, act, workload="default", version="v1")
        experiment = itself.begin(session, act, workload="default", settings=SETTINGS)
    at = context.clock()
    for role, version, good in (("champion", "v1", False), ("challenger", "v1-again", True)):
        log_trial(context, experiment.id, role=role, number=150, good=good, at=at, version=version)
    clock.move(hours=49)
    assert look(context, "default").action is Action.PROMOTE
    found = state(context)
    assert found.champion is not None
    assert (found.champion.version, found.challengers) == ("v1", ())
    page = write_page(context, experiment.id)
    assert page.sentence.startswith("A difference was found where there is none")
