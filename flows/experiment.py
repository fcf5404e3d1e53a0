"""A look at the running experiment: decide on what is known now, and carry it out."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from datetime import datetime
from typing import Literal

from prefect import flow
from sqlmodel import Session

from flows import rollout
from flows.context import Context, open_context
from flows.decisions.experiment import Action, ExperimentDecision, decide
from flows.decisions.experiment_facts import facts_from, read, stage_of
from flows.decisions.replay import stored
from flows.prefect_steps import PrefectSteps
from flows.reports.experiment_page import write_page
from flows.reports.tables import experiment_table
from flows.steering import Act, steer
from flows.steps import Steps
from registry import deployment, experiments, holdback
from registry.errors import ConflictError
from registry.models import DeploymentState, Experiment
from registry.settings_decisions import ExperimentSettings
from registry.versions import Status

ACTOR = "flow:experiment"
NOTHING = ExperimentDecision(Action.WAIT, ("no experiment is running",), None, {})
PAUSED = ExperimentDecision(Action.WAIT, ("the experiment is paused",), None, {})
DONE_BY_ANOTHER = ExperimentDecision(
    Action.WAIT, ("another look has just ended this experiment",), None, {}
)

logger = logging.getLogger(__name__)


def look(context: Context, workload: str) -> ExperimentDecision:
    """Decide about the workload's running experiment and carry the decision out.

    The experiment keeps the settings it was started with. The decision is stored with its
    reasons and all it looked at in the transaction that acts on it; of two looks at once one
    acts. Where none is running, a version that waits is put on trial.
    """
    with context.database.read() as session:
        experiment = experiments.running(session, workload=workload)
        if experiment is None:
            return _start_waiting(context, workload)
        state = deployment.desired(session, workload)
        if state.share == 0 and experiment.share > 0:
            return PAUSED
        now = _not_before(context.clock(), experiment, experiments.last_look(session, experiment))
        settings = ExperimentSettings.model_validate(experiment.settings)
        refusal = _refusal(session, experiment, context.clock())
        seen = read(session, experiment, stage=stage_of(experiment), settings=settings, now=now)
    facts = replace(
        facts_from(seen, settings=settings, now=now),
        is_frozen=experiment.frozen,
        refusal=refusal,
    )
    decision = decide(facts, settings)
    try:
        _carry_out(context, experiment, decision, asdict(facts), state.generation, now)
    except ConflictError as conflict:
        logger.info("%s: %s", workload, conflict)
        return DONE_BY_ANOTHER
    return decision


def _not_before(now: datetime, experiment: Experiment, last: datetime | None) -> datetime:
    """A clock that stepped back must not make history run backwards."""
    return max(now, experiment.started_at, last or now)


def _refusal(session: Session, experiment: Experiment, now: datetime) -> str | None:
    """Why the version on trial can answer nobody, where the registry or a replica says so."""
    is_trial = experiment.kind != holdback.KIND
    version = experiment.challenger if is_trial else experiment.champion
    if version is None:
        return "the version on trial is gone from the registry"
    for replica in deployment.replicas(session, now=now):
        if version in replica.refused:
            return f"'{version}' cannot be served: {replica.refused[version]}"
    return None


def _start_waiting(context: Context, workload: str) -> ExperimentDecision:
    """Put the version that waits on trial, where there is one and nothing is in its way."""
    settings = context.settings.experiment
    if not settings.enabled:
        return NOTHING
    with context.database.write() as session:
        found = rollout.waiting(session, workload=workload)
        if found is None:
            return NOTHING
        hindered = rollout.obstacle(
            session, workload=workload, settings=settings, now=context.clock()
        )
        if hindered is not None:
            return ExperimentDecision(
                Action.WAIT, (f"'{found.version}' waits: {hindered}",), None, {}
            )
        reason = f"it waited, and {rollout.first_step_text(settings)}"
        rollout.begin(
            session,
            context.act(ACTOR, reason),
            workload=workload,
            version=found.version,
            settings=settings,
        )
    return ExperimentDecision(Action.START, (f"'{found.version}': {reason}",), None, {})


def _carry_out(
    context: Context,
    experiment: Experiment,
    decision: ExperimentDecision,
    facts: dict[str, object],
    generation: int,
    now: datetime,
) -> None:
    act = deployment.Act(ACTOR, "; ".join(decision.reasons), now, context.keyring, context.new_id)
    with context.database.write() as session:
        state = deployment.lock(session, experiment.workload)
        if (state.experiment_id, state.generation) != (experiment.id, generation):
            raise ConflictError(f"experiment '{experiment.id}' has changed since it was read")
        experiments.record_decision(
            session,
            decision_id=context.new_id(),
            experiment_id=experiment.id,
            action=decision.action.value,
            reasons=list(decision.reasons),
            facts=stored(decision, facts),
            now=act.now,
        )
        if experiment.kind == holdback.KIND:
            _end_holdback(session, act, state, decision.action)
        elif decision.action is Action.PROMOTE:
            experiments.promote(session, act, experiment_id=experiment.id)
        elif decision.action is Action.ROLL_BACK:
            experiments.stop(session, act, experiment_id=experiment.id, status=Status.ROLLED_BACK)
        elif decision.action is Action.RETIRE:
            experiments.stop(session, act, experiment_id=experiment.id, status=Status.RETIRED)
        elif decision.action is Action.RAMP and decision.share is not None:
            experiments.ramp(session, act, experiment_id=experiment.id, share=decision.share)


def _end_holdback(
    session: Session, act: deployment.Act, state: DeploymentState, action: Action
) -> None:
    if action is Action.CONFIRM:
        holdback.confirm(session, act, state)
    elif action is Action.ROLL_BACK:
        holdback.undo(session, act, state)


def run_experiment(context: Context, *, workload: str, steps: Steps) -> ExperimentDecision:
    """Look once, and show what was decided with the course of the comparison so far."""
    with context.database.read() as session:
        running = experiments.running(session, workload=workload)
    decision = steps.run("look", lambda: look(context, workload))
    steps.table("experiment", experiment_table(decision))
    if running is not None:
        page = write_page(context, running.id)
        steps.table("experiment-page", page.markdown)
        if page.plot is not None:
            steps.image("experiment", page.plot, "The course of the experiment")
    return decision


@flow(name="experiment")
def experiment(
    workload: str = "default",
    act: Literal["look", "freeze", "unfreeze", "pause", "resume", "promote", "rollback"] = "look",
    reason: str = "by hand, in Prefect",
) -> None:
    """Promote, roll back, ramp, retire or wait; or do by hand what `act` says, with a reason."""
    context = open_context()
    if act == "look":
        run_experiment(context, workload=workload, steps=PrefectSteps())
    else:
        steer(context, Act(act), workload=workload, actor="prefect", reason=reason)
