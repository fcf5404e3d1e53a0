"""A look at the running experiment: decide on what is known now, and carry it out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Literal

from prefect import State, flow
from sqlmodel import Session

from flows import rollout
from flows.context import Context, open_context
from flows.decisions.experiment import Action, ExperimentDecision, ExperimentFacts
from flows.decisions.experiment_facts import facts_from, read, stage_of
from flows.decisions.replay import stored
from flows.decisions.several import Judged, Name, for_each, judge, share_for_all, together
from flows.each_workload import End, chosen, in_turn
from flows.prefect_steps import PrefectSteps, completed
from flows.reports.experiment_page import write_page
from flows.reports.tables import experiment_table
from flows.steering import Act, steer
from flows.steps import Steps, StepsFor
from registry import arms, deployment, experiments, holdback, trial_rows
from registry.errors import ConflictError
from registry.models import DEFAULT_WORKLOAD, DeploymentState, Experiment
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
    settings = ExperimentSettings.model_validate(experiment.settings)
    trial_rows.keep(context.database, experiment, prior_days=settings.prior_days)
    with context.database.read() as session:
        now = _not_before(context.clock(), experiment, experiments.last_look(session, experiment))
        facts = _facts(context, session, experiment, settings, now)
    judged = judge(facts, settings)
    try:
        _carry_out(context, experiment, judged, state.generation, now)
    except ConflictError as conflict:
        logger.info("%s: %s", workload, conflict)
        return DONE_BY_ANOTHER
    return together(judged)


def _facts(
    context: Context,
    session: Session,
    experiment: Experiment,
    settings: ExperimentSettings,
    now: datetime,
) -> dict[Name, ExperimentFacts]:
    """Of every challenger on trial."""
    rows = arms.of(session, experiment.id)
    names: list[Name] = [row.version for row in rows if row.status == "running"] or [None]
    own = for_each(settings, max(1, len(rows)))
    found: dict[Name, ExperimentFacts] = {}
    for name in names:
        seen = read(
            session, experiment, stage=stage_of(experiment), settings=own, now=now, version=name
        )
        found[name] = replace(
            facts_from(seen, settings=own, now=now),
            is_frozen=experiment.frozen,
            refusal=_refusal(session, experiment, name, context.clock()),
        )
    return found


def _not_before(now: datetime, experiment: Experiment, last: datetime | None) -> datetime:
    """A clock that stepped back must not make history run backwards."""
    return max(now, experiment.started_at, last or now)


def _refusal(session: Session, experiment: Experiment, name: Name, now: datetime) -> str | None:
    """Why the version on trial can answer nobody, where the registry or a replica says so."""
    is_trial = experiment.kind != holdback.KIND
    version = name or (experiment.challenger if is_trial else experiment.champion)
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
        found = rollout.waiting(session, workload=workload, most=settings.max_challengers)
        if not found:
            return NOTHING
        named = ", ".join(f"'{version}'" for version in found)
        hindered = rollout.obstacle(
            session, workload=workload, settings=settings, now=context.clock()
        )
        if hindered is not None:
            return ExperimentDecision(Action.WAIT, (f"{named} waits: {hindered}",), None, {})
        reason = f"it waited, and {rollout.first_step_text(settings)}"
        rollout.begin(
            session,
            context.act(ACTOR, reason),
            workload=workload,
            version=found[0],
            rivals=found[1:],
            settings=settings,
        )
    return ExperimentDecision(Action.START, (f"{named}: {reason}",), None, {})


def _carry_out(
    context: Context,
    experiment: Experiment,
    judged: Mapping[Name, Judged],
    generation: int,
    now: datetime,
) -> None:
    def act_of(decision: ExperimentDecision) -> deployment.Act:
        reason = "; ".join(decision.reasons)
        return deployment.Act(ACTOR, reason, now, context.keyring, context.new_id)

    with context.database.write() as session:
        state = deployment.lock(session, experiment.workload)
        if (state.experiment_id, state.generation) != (experiment.id, generation):
            raise ConflictError(f"experiment '{experiment.id}' has changed since it was read")
        for name, one in judged.items():
            experiments.record_decision(
                session,
                decision_id=context.new_id(),
                experiment_id=experiment.id,
                action=one.decision.action.value,
                reasons=list(one.decision.reasons),
                facts=stored(one.decision, asdict(one.facts)),
                now=now,
                version=name,
            )
        decisions = {name: one.decision for name, one in judged.items()}
        if experiment.kind == holdback.KIND:
            (decision,) = decisions.values()
            _end_holdback(session, act_of(decision), state, decision.action)
        else:
            _change_trial(session, act_of, experiment, decisions)


LEAVING = {Action.ROLL_BACK: Status.ROLLED_BACK, Action.RETIRE: Status.RETIRED}


def _change_trial(
    session: Session,
    act_of: Callable[[ExperimentDecision], deployment.Act],
    experiment: Experiment,
    decisions: Mapping[Name, ExperimentDecision],
) -> None:
    """One wins; or some leave, the last of them ending the trial; or all get more people."""
    staying, trial = len(decisions), experiment.id
    for name, decision in decisions.items():
        if decision.action is Action.PROMOTE and experiment.kind == experiments.ITSELF:
            experiments.stop(session, act_of(decision), experiment_id=trial, status=Status.RETIRED)
            return
        if decision.action is Action.PROMOTE:
            experiments.promote(session, act_of(decision), experiment_id=trial, version=name)
            return
    for name, decision in decisions.items():
        if decision.action not in LEAVING:
            continue
        status, act, staying = LEAVING[decision.action], act_of(decision), staying - 1
        if staying == 0 or name is None:
            experiments.stop(session, act, experiment_id=trial, status=status)
        else:
            experiments.drop(session, act, experiment_id=trial, version=name, status=status)
    share = share_for_all(decisions.values())
    if share is not None and staying == len(decisions):
        act = act_of(next(iter(decisions.values())))
        experiments.ramp(session, act, experiment_id=trial, share=share)


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


def look_at_each(context: Context, workload: str | None, *, steps_for: StepsFor) -> End:
    """Look at the workload; where none is named at the default one and all that have a trial."""

    names = chosen(context, workload)

    def turn(name: str) -> End:
        if name != names[0] and not _has_trial(context, name):
            return End("nothing is on trial, and nothing waits")
        decision = run_experiment(context, workload=name, steps=steps_for(name))
        return End(f"{decision.action}: {'; '.join(decision.reasons)}")

    return in_turn(names, turn)


def _has_trial(context: Context, workload: str) -> bool:
    """Whether one runs or waits. The others cost this question, and leave nothing to read."""
    with context.database.read() as session:
        if experiments.running(session, workload=workload) is not None:
            return True
        is_on = context.settings.experiment.enabled
        return is_on and bool(rollout.waiting(session, workload=workload))


@flow(name="experiment")
def experiment(
    workload: str | None = None,
    act: Literal["look", "freeze", "unfreeze", "pause", "resume", "promote", "rollback"] = "look",
    reason: str = "by hand, in Prefect",
) -> State[None] | None:
    """Promote, roll back, ramp, retire or wait; or do by hand what `act` says, with a reason.

    `workload` None: a look at each one, an act in the default one.
    """
    context = open_context()
    if act == "look":
        return completed(look_at_each(context, workload, steps_for=PrefectSteps))
    steer(context, Act(act), workload=workload or DEFAULT_WORKLOAD, actor="prefect", reason=reason)
    return None
