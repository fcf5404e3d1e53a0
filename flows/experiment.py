"""A look at the running experiment: decide on what is known now, and carry it out."""

from __future__ import annotations

import logging

from prefect import flow

from flows.context import Context, open_context
from flows.decisions.experiment import Action, ExperimentDecision, decide, facts_from
from flows.prefect_steps import PrefectSteps
from flows.reports.plots import data_uri, experiment_plot
from flows.reports.tables import experiment_table
from flows.steps import Steps
from registry import deployment, experiments
from registry.errors import ConflictError
from registry.models import Experiment
from registry.settings import ExperimentSettings
from registry.versions import Status

ACTOR = "flow:experiment"
MAX_PLOTTED = 1_500
"""Looks in the plot: two weeks of one every quarter of an hour."""
NOTHING = ExperimentDecision(Action.WAIT, ("no experiment is running",), None, {})
PAUSED = ExperimentDecision(Action.WAIT, ("the experiment is paused",), None, {})
DONE_BY_ANOTHER = ExperimentDecision(
    Action.WAIT, ("another look has just ended this experiment",), None, {}
)

logger = logging.getLogger(__name__)


def look(context: Context, workload: str) -> ExperimentDecision:
    """Decide about the workload's running experiment and carry the decision out.

    The experiment keeps the settings it was started with. The decision is stored with its
    reasons and numbers in the transaction that acts on it; of two looks at once one acts.
    """
    with context.database.read() as session:
        experiment = experiments.running(session, workload=workload)
        if experiment is None:
            return NOTHING
        if deployment.desired(session, workload).share == 0:
            return PAUSED
        observations = experiments.observations(session, experiment_id=experiment.id)
    settings = ExperimentSettings.model_validate(experiment.settings)
    facts = facts_from(
        observations,
        started_at=experiment.started_at,
        share=experiment.share,
        settings=settings,
        now=context.clock(),
    )
    decision = decide(facts, settings)
    try:
        _carry_out(context, experiment, decision)
    except ConflictError as conflict:
        logger.info("%s: %s", workload, conflict)
        return DONE_BY_ANOTHER
    return decision


def _carry_out(context: Context, experiment: Experiment, decision: ExperimentDecision) -> None:
    act = context.act(ACTOR, "; ".join(decision.reasons))
    with context.database.write() as session:
        state = deployment.lock(session, experiment.workload)
        if (state.experiment_id, state.share) != (experiment.id, experiment.share):
            raise ConflictError(f"experiment '{experiment.id}' has changed since it was read")
        experiments.record_decision(
            session,
            decision_id=context.new_id(),
            experiment_id=experiment.id,
            action=decision.action.value,
            reasons=list(decision.reasons),
            facts=dict(decision.numbers),
            now=act.now,
        )
        if decision.action is Action.PROMOTE:
            experiments.promote(session, act, experiment_id=experiment.id)
        elif decision.action is Action.ROLL_BACK:
            experiments.stop(session, act, experiment_id=experiment.id, status=Status.ROLLED_BACK)
        elif decision.action is Action.RETIRE:
            experiments.stop(session, act, experiment_id=experiment.id, status=Status.RETIRED)
        elif decision.action is Action.RAMP and decision.share is not None:
            experiments.ramp(session, act, experiment_id=experiment.id, share=decision.share)


def run_experiment(context: Context, *, workload: str, steps: Steps) -> ExperimentDecision:
    """Look once, and show what was decided with the course of the comparison so far."""
    decision = steps.run("look", lambda: look(context, workload))
    steps.table("experiment", experiment_table(decision))
    with context.database.read() as session:
        last = experiments.last_decisions(session, workload=workload, limit=MAX_PLOTTED)
    looks = [
        (row.decided_at, row.facts["difference"], row.facts["lower"], row.facts["upper"])
        for row in reversed(last)
        if row.experiment_id == last[0].experiment_id and row.facts.get("difference") is not None
    ]
    if len(looks) > 1:
        steps.image(
            "experiment", data_uri(experiment_plot(looks)), "Challenger minus champion over time"
        )
    return decision


@flow(name="experiment")
def experiment(workload: str = "default") -> None:
    """Promote, roll back, ramp, retire or wait."""
    run_experiment(open_context(), workload=workload, steps=PrefectSteps())
