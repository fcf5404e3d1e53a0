"""The triggers, from usage in the registry to the retraining that starts."""

from __future__ import annotations

import pytest
from sqlmodel import select

from flows.check_triggers import check_each, run_check_triggers
from flows.context import Context
from flows.decisions.triggers import Trigger
from flows.steps import PlainSteps
from registry import deployment, runs
from registry.models import TriggerCheck
from tests.flows.conftest import FakeClock
from tests.support.usage import log_liked

pytestmark = pytest.mark.both_databases


def check(context: Context, *, force: bool = False) -> tuple[Trigger | None, list[str]]:
    started: list[str] = []
    decision = run_check_triggers(
        context, started.append, workload="default", force=force, steps=PlainSteps()
    )
    return decision.trigger, started


def test_an_empty_installation_starts_nothing(context: Context) -> None:
    assert check(context) == (None, [])


def test_a_week_after_the_first_interaction_the_schedule_fires(
    context: Context, clock: FakeClock
) -> None:
    log_liked(context, 3, at=clock())
    clock.move(hours=167)
    assert check(context) == (None, [])
    clock.move(hours=1)
    assert check(context) == (Trigger.SCHEDULED, ["scheduled"])


def test_force_fires_whatever_the_numbers(context: Context) -> None:
    assert check(context, force=True) == (Trigger.FORCED, ["forced"])


def test_a_running_training_holds_even_force_back_until_it_is_dead(
    context: Context, clock: FakeClock
) -> None:
    with context.database.write() as session:
        runs.start(session, run_id="r", workload="default", trigger="x", now=clock())
    assert check(context, force=True) == (None, [])
    clock.move(minutes=10)
    assert check(context, force=True) == (Trigger.FORCED, ["forced"])


def test_every_check_is_kept_with_its_numbers(context: Context, clock: FakeClock) -> None:
    log_liked(context, 3, at=clock())
    clock.move(hours=1)
    check(context)
    with context.database.read() as session:
        kept = session.exec(select(TriggerCheck)).one()
    assert (kept.fired, kept.trigger) == (False, None)
    assert kept.facts["num_new_samples"] == 3
    assert "3 new quality samples (trigger: 1000; 997 to go)" in kept.facts["checks"]


def test_each_workload_is_checked_and_started_by_its_own_numbers(
    context: Context, clock: FakeClock
) -> None:
    with context.database.write() as session:
        deployment.add_workload(session, "support", now=clock())
    log_liked(context, 3, at=clock(), workload="support")
    clock.move(hours=168)
    started: list[tuple[str, str]] = []
    end = check_each(
        context,
        None,
        lambda workload, trigger: started.append((workload, trigger)),
        steps_for=lambda _: PlainSteps(),
    )
    assert started == [("support", "scheduled")]
    assert [line.split(":")[0] for line in end.message.splitlines()] == ["default", "support"]
    with context.database.read() as session:
        kept = session.exec(select(TriggerCheck.workload, TriggerCheck.fired)).all()
    assert sorted(kept) == [("default", False), ("support", True)]
