"""Looks at the retraining triggers, and starts a retraining when one fires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import httpx
from prefect import State, flow
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows import trail
from flows.context import Context, open_context
from flows.decisions.facts import gather, keep_days
from flows.decisions.triggers import TriggerDecision, decide
from flows.each_workload import End, chosen, in_turn
from flows.errors import LocalError
from flows.prefect_steps import PrefectSteps, completed
from flows.reports.tables import trigger_table
from flows.steps import Steps, StepsFor
from registry import acts, runs, statistics

ACTOR = "flow:check-triggers"
RETRAIN_DEPLOYMENT = "retrain/weekly"

StartRetrain = Callable[[str], object]
"""Starts a retraining; given the trigger's name."""


def check(
    context: Context,
    *,
    workload: str,
    force: bool = False,
    steps: Steps,
    expect_start: Callable[[], None] = lambda: None,
) -> TriggerDecision:
    """Decide on what is known now, and keep the decision with its numbers.

    `expect_start` raises where a retraining could not be started: then none is said to be.
    """
    settings, now = context.settings, context.clock()
    with context.database.write() as session:
        dead = trail.reap_trainings(context, session)
        statistics.fold(session, now=now)
    keep_days(
        context.database, workload=workload, settings=settings, now=now, keyring=context.keyring
    )
    with context.database.read() as session:  # nobody waits while it is read
        facts = gather(
            session, workload=workload, settings=settings, now=now, keyring=context.keyring
        )
    decision = decide(facts, settings.triggers, force=force)
    if decision.trigger is not None:
        expect_start()
    with context.database.write() as session:
        runs.record_check(
            session,
            check_id=context.new_id(),
            workload=workload,
            trigger=None if decision.trigger is None else decision.trigger.value,
            reason=decision.reason,
            facts={**asdict(facts), "checks": list(decision.checks)},
            now=now,
        )
        if decision.trigger is not None:
            acts.record(
                session,
                context.act(ACTOR, decision.reason),
                action="fire_trigger",
                subject=f"workload:{workload}",
                details={"trigger": decision.trigger.value},
            )
    for run in dead:
        steps.abandoned(run)
    steps.table("triggers", trigger_table(decision))
    return decision


def run_check_triggers(
    context: Context,
    start_retrain: StartRetrain,
    *,
    workload: str,
    force: bool = False,
    steps: Steps,
    expect_start: Callable[[], None] = lambda: None,
) -> TriggerDecision:
    """Check, and hand over to `start_retrain` when a trigger fired."""
    decision = steps.run(
        "check",
        lambda: check(
            context, workload=workload, force=force, steps=steps, expect_start=expect_start
        ),
    )
    if decision.trigger is not None:
        name = decision.trigger.value
        steps.run("start-retrain", lambda: start_retrain(name))
    return decision


def check_each(
    context: Context,
    workload: str | None,
    start_retrain: Callable[[str, str], object],
    *,
    force: bool = False,
    steps_for: StepsFor,
) -> End:
    """Check the workload, or each one. `start_retrain` is given its name and the trigger's."""

    def turn(name: str) -> End:
        decision = run_check_triggers(
            context,
            lambda trigger: start_retrain(name, trigger),
            workload=name,
            force=force,
            steps=steps_for(name),
        )
        return End(f"{decision.trigger or 'nothing to do'}: {decision.reason}")

    return in_turn(chosen(context, workload), turn)


@flow(name="check-triggers")
def check_triggers(
    workload: str | None = None, force: bool = False, dry_run: bool = False
) -> State[None]:
    """Cooldown, then the triggers in their order; the first that fires starts retrain/weekly.

    `workload` None: each one. `force` fires whatever the numbers; `dry_run` has the retraining
    only prepare its data.
    """

    def start(name: str, trigger: str) -> object:
        return start_deployment(workload=name, trigger=trigger, dry_run=dry_run)

    return completed(
        check_each(open_context(), workload, start, force=force, steps_for=PrefectSteps)
    )


def start_deployment(*, workload: str, trigger: str, dry_run: bool) -> object:
    """Have Prefect run retrain/weekly, without waiting for it."""
    return run_deployment(
        RETRAIN_DEPLOYMENT,
        parameters={"workload": workload, "trigger": trigger, "dry_run": dry_run},
        timeout=0,
        as_subflow=False,
    )


def expect_deployment() -> None:
    """Raise `LocalError` unless there is a Prefect server that knows retrain/weekly."""
    client = get_client(sync_client=True)
    try:
        with client:
            client.read_deployment_by_name(RETRAIN_DEPLOYMENT)
    except (httpx.HTTPError, ObjectNotFound) as error:
        raise LocalError(
            f"no Prefect server at {client.api_url} that can start {RETRAIN_DEPLOYMENT}: "
            "'kalimtak up' first, or --run-here"
        ) from error
