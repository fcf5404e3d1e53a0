"""`kalimtak experiment`: look at the trial that runs, and at those that ran.

What draws and what computes is imported by the command that needs it.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows import environment, rollout
from flows.context import Context, open_context
from flows.steering import Act, steer
from registry import arms, by_hand, experiments, itself
from registry.deployment import desired
from registry.errors import NotFoundError
from registry.models import Experiment
from registry.settings import load_settings
from registry.settings_decisions import ExperimentSettings
from registry.versions import Status

app = typer.Typer(help="The trial of a challenger.", invoke_without_command=True)
console = Console()
ACTOR = "cli"

Workload = Annotated[str, typer.Option(help="The task that this is about.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit log.")]
Id = Annotated[str | None, typer.Argument(help="Of the experiment. Unset: the latest.")]


@app.callback()
def look(context: typer.Context, workload: Workload = "default") -> None:
    """Look at the running experiment, and act on what the numbers say."""
    if context.invoked_subcommand is not None:
        context.default_map = {context.invoked_subcommand: {"workload": workload}}
        return
    opened = _open(workload)
    from flows.experiment import look as look_now

    decision = look_now(opened, workload)
    _tell(f"{decision.action}: {'; '.join(decision.reasons)}")


@app.command("list")
def show_all(workload: Workload = "default") -> None:
    """The experiments, newest first."""
    from flows.reports.experiment_words import status_text, title

    with _open(workload).database.read() as session:
        found = experiments.list_experiments(session, workload=workload)
        tried = {row.id: [arm.version for arm in arms.of(session, row.id)] for row in found}
    table = Table(
        Column("id", no_wrap=True),
        "what",
        "status",
        "share",
        "from (UTC)",
        "to",
        "reason",
        box=None,
    )
    for row in found:
        table.add_row(
            row.id,
            escape(title(row, tried[row.id])),
            status_text(row) + (", frozen" if row.frozen and row.status == "running" else ""),
            f"{row.share:.0%}",
            f"{row.started_at:%Y-%m-%d %H:%M}",
            "–" if row.ended_at is None else f"{row.ended_at:%Y-%m-%d %H:%M}",
            escape(row.reason or ""),
        )
    console.print(table)


@app.command()
def show(
    experiment_id: Id = None,
    workload: Workload = "default",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """One experiment: the decision in a sentence, its looks, and a page with its course."""
    from flows.reports.experiment_page import write_page
    from flows.reports.experiment_words import sentence, telling, title

    context = _open(workload)
    found = _find(context, experiment_id, workload)
    with context.database.read() as session:
        looks = experiments.decisions(session, experiment_id=found.id)
        tried = [arm.version for arm in arms.of(session, found.id)]
    if as_json:
        content = {
            **json.loads(found.model_dump_json()),
            "looks": [json.loads(look.model_dump_json()) for look in looks],
        }
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    _tell(title(found, tried))
    _tell(sentence(found, looks))
    table = Table("when (UTC)", "action", "reasons", box=None)
    for at, action, reasons in telling(looks):
        table.add_row(f"{at:%Y-%m-%d %H:%M}", action, escape(reasons))
    console.print(table)
    _tell(f"page: {write_page(context, found.id).path}")


@app.command()
def replay(experiment_id: Id = None, workload: Workload = "default") -> None:
    """Make every decision again from what was kept; exit code 1 where one differs."""
    from flows.decisions.replay import decide_again, is_same

    context = _open(workload)
    found = _find(context, experiment_id, workload)
    with context.database.read() as session:
        looks = experiments.decisions(session, experiment_id=found.id)
    settings = _of(found)
    same = differing = unknown = 0
    for look in looks:
        again = decide_again(look.facts, settings)
        if again is None:
            unknown += 1
        elif is_same(
            again, action=look.action, reasons=look.reasons["reasons"], row_facts=look.facts
        ):
            same += 1
        else:
            differing += 1
            of = "" if look.version is None else f" {look.version}"
            _tell(f"{look.decided_at:%Y-%m-%d %H:%M}{of}: {look.action} then, {again.action} now")
    rest = f", {unknown} without their facts" if unknown else ""
    _tell(f"{same} of {len(looks)} looks decide the same again{rest}")
    if differing:
        raise typer.Exit(1)


@app.command()
def start(
    version: Annotated[list[str], typer.Argument(help="One, or several at once.")],
    workload: Workload = "default",
    reason: Reason = "started by hand",
) -> None:
    """Put versions on trial now, each against the champion."""
    context = _open(workload)
    with context.database.write() as session:
        found = rollout.begin(
            session,
            context.act(ACTOR, reason),
            workload=workload,
            version=version[0],
            rivals=version[1:],
            settings=context.settings.experiment,
        )
    _tell(f"experiment {found.id}: {', '.join(version)} {rollout.first_step_text(_of(found))}")


@app.command()
def drop(
    version: Annotated[str, typer.Argument(help="One of several that are on trial.")],
    workload: Workload = "default",
    reason: Reason = "dropped by hand",
) -> None:
    """Take one of several challengers off; the trial of the others goes on."""
    context = _open(workload)
    with context.database.write() as session:
        experiments.drop(
            session,
            context.act(ACTOR, reason),
            experiment_id=by_hand.running(session, workload=workload).id,
            version=version,
            status=Status.ROLLED_BACK,
        )
        left = desired(session, workload).challengers
    _tell(f"on trial: {', '.join(live.version for live in left)}")


@app.command()
def aa(
    workload: Workload = "default",
    reason: Reason = "to see that nothing is found",
) -> None:
    """Try the champion against itself: whatever is found then is a fault, or chance."""
    context = _open(workload)
    with context.database.write() as session:
        found = itself.begin(
            session,
            context.act(ACTOR, reason),
            workload=workload,
            settings=context.settings.experiment,
        )
    _tell(f"experiment {found.id}: {found.champion} against itself, on {found.share:.0%}")


@app.command()
def freeze(workload: Workload = "default", reason: Reason = "frozen by hand") -> None:
    """Leave the trial as it is until told otherwise; guardrails still act."""
    _steer(Act.FREEZE, workload, reason)


@app.command()
def unfreeze(workload: Workload = "default", reason: Reason = "no longer frozen") -> None:
    """Let the numbers decide again."""
    _steer(Act.UNFREEZE, workload, reason)


@app.command()
def pause(workload: Workload = "default", reason: Reason = "paused by hand") -> None:
    """Send the challenger no traffic for now; nothing counts meanwhile."""
    _steer(Act.PAUSE, workload, reason)


@app.command()
def resume(workload: Workload = "default", reason: Reason = "resumed by hand") -> None:
    """Go on with a paused trial at the share that it had."""
    _steer(Act.RESUME, workload, reason)


def _steer(act: Act, workload: str, reason: str) -> None:
    state = steer(_open(workload), act, workload=workload, actor=ACTOR, reason=reason)
    _tell(f"{act}: share {state.share:.0%} (generation {state.generation})")


def _find(context: Context, experiment_id: str | None, workload: str) -> Experiment:
    with context.database.read() as session:
        if experiment_id is not None:
            return experiments.get(session, experiment_id)
        latest = experiments.list_experiments(session, workload=workload, limit=1)
    if not latest:
        raise NotFoundError(f"workload '{workload}' had no experiment yet")
    return latest[0]


def _of(experiment: Experiment) -> ExperimentSettings:
    """What the experiment was started with."""
    return ExperimentSettings.model_validate(experiment.settings)


def _open(workload: str) -> Context:
    settings = load_settings()
    environment.apply(settings)
    return open_context(settings, workload=workload)


def _tell(line: str) -> None:
    console.print(escape(line), highlight=False)
