"""`kalimtak`: the command line beside Prefect's.

Errors that the product raises on purpose end in one line and exit code 2; a training that
is refused or rejected ends in exit code 1. What is heavy is imported by the command that
needs it, after the environment is set.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from sqlalchemy.exc import SQLAlchemyError

from flows import (
    cli_access,
    cli_curation,
    cli_database,
    cli_experiment,
    cli_federation,
    cli_import,
    cli_privacy,
    cli_signals,
    cli_trail,
    cli_workload,
    environment,
    status,
)
from flows.context import Context, open_context
from flows.demo.folder import own_folder
from flows.demo.settings import prepare
from flows.learner import Learner
from flows.local import launch
from flows.steps import PlainSteps
from registry import by_hand, deployment, runs, versions
from registry.db import Database
from registry.db_errors import explain
from registry.errors import KalimtakError
from registry.settings import Settings, load_settings

app = typer.Typer(
    help="A language model that improves from use.", no_args_is_help=True, add_completion=False
)
app.add_typer(cli_database.app, name="db")
app.add_typer(cli_access.key, name="key")
app.command()(cli_access.token)
app.add_typer(cli_workload.app, name="workload")
cli_privacy.add_to(app)
app.add_typer(cli_signals.scorer, name="scorer")
app.add_typer(cli_experiment.app, name="experiment")
app.command("import")(cli_import.import_file)
cli_trail.add_to(app)
app.command()(cli_curation.curate)
app.command()(cli_federation.federate)
console = Console()
ACTOR = "cli"

Workload = Annotated[str, typer.Option(help="The task that this is about.")]
Force = Annotated[bool, typer.Option("--force", help="Go ahead whatever the numbers say.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "--no-train", help="Only prepare the data.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit log.")]
Generation = Annotated[
    int | None, typer.Option(min=0, help="What you saw; where it has changed since, nothing is.")
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


def main() -> None:
    """The entry point."""
    try:
        app()
    except KalimtakError as error:
        _fail(error)
    except OSError as error:
        if error.filename is None:
            raise
        what = f"cannot use {error.filename}: {error.strerror}"
        _fail(KalimtakError(f"{what}: check the path, or the setting home"))
    except SQLAlchemyError as error:
        _fail(explain(error, load_settings().resolved_database_url))


def _fail(error: KalimtakError) -> NoReturn:
    sys.stderr.write(f"kalimtak: {error}\n")
    sys.exit(2)


def _settings() -> Settings:
    """The settings, with the environment that Ray and Prefect need set accordingly."""
    settings = load_settings()
    environment.apply(settings)
    return settings


def _tell(line: str) -> None:
    console.print(escape(line), highlight=False)


@app.command()
def up() -> None:
    """Start Ray, serving, Prefect with its UI and a worker on this machine."""
    settings = _settings()
    addresses = launch.up(settings, _tell, actor=ACTOR)
    table = Table("what", "address", box=None)
    table.add_row("endpoint", addresses["serving"])
    table.add_row("Prefect UI", addresses["prefect"].removesuffix("/api"))
    table.add_row("Ray", addresses["ray"])
    console.print(table)


@app.command()
def down() -> None:
    """Stop what `up` has started, and nothing else."""
    _tell("stopped" if launch.down(_settings(), _tell) else "nothing was started here")


@app.command("status")
def show_status(workload: Workload = "default", as_json: AsJson = False) -> None:
    """Usage, trainings, champion, challenger and the last decisions."""
    settings = _settings()
    found = status.read_status(open_context(settings, workload=workload), workload=workload)
    if as_json:
        sys.stdout.write(
            json.dumps({**found.as_dict(), "up": launch.is_up(settings)}, indent=2) + "\n"
        )
        return
    table = Table(show_header=False, box=None)
    table.add_row("workload", escape(found.workload))
    for name, value in status.rows(found).items():
        table.add_row(name, escape(value))
    table.add_row("running here", escape(launch.how_it_runs(settings)))
    console.print(table)
    if found.decisions:
        decisions = Table("decided at (UTC)", "action", "reason", title="last decisions")
        for look in found.decisions:
            decisions.add_row(f"{look.decided_at:%Y-%m-%d %H:%M}", look.action, escape(look.reason))
        console.print(decisions)


@app.command()
def triggers(
    workload: Workload = "default",
    force: Force = False,
    dry_run: DryRun = False,
    run_here: Annotated[
        bool, typer.Option("--run-here", help="Retrain in this process, without Prefect.")
    ] = False,
    last: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Only explain so many of the last checks.")
    ] = 0,
) -> None:
    """Check whether to retrain, and start it when a trigger fires."""
    settings = _settings()
    if last:
        _explain_checks(open_context(settings, workload=workload), workload=workload, limit=last)
        return
    from flows.check_triggers import expect_deployment, run_check_triggers, start_deployment
    from flows.retrain import run_retrain

    context = open_context(settings, workload=workload)

    def here(trigger: str) -> object:
        return run_retrain(
            context, _learner(settings), workload=workload, trigger=trigger, dry_run=dry_run
        )

    def there(trigger: str) -> object:
        return start_deployment(workload=workload, trigger=trigger, dry_run=dry_run)

    decision = run_check_triggers(
        context,
        here if run_here else there,
        workload=workload,
        force=force,
        steps=PlainSteps(),
        expect_start=(lambda: None) if run_here else expect_deployment,
    )
    for check in decision.checks:
        _tell(f"  {check}")
    _tell(f"{decision.trigger or 'nothing to do'}: {decision.reason}")


@app.command()
def retrain(workload: Workload = "default", force: Force = False, dry_run: DryRun = False) -> None:
    """Train, evaluate, judge and register a version, in this process."""
    settings = _settings()
    from flows.retrain import run_retrain

    result = run_retrain(
        open_context(settings, workload=workload),
        _learner(settings),
        workload=workload,
        trigger="manual",
        force=force,
        dry_run=dry_run,
    )
    _tell(f"{result.status}: {result.reason}")
    if result.version is not None:
        _tell(f"version {result.version} is {result.standing}")
    if result.status in ("refused", "rejected"):
        raise typer.Exit(1)


@app.command()
def evaluate(workload: Workload = "default") -> None:
    """Evaluate the champion, the versions before it and the base; write a page."""
    settings = _settings()
    from flows.evaluate import run_evaluate

    context = open_context(settings, workload=workload)
    report = run_evaluate(context, _learner(settings), workload=workload, steps=PlainSteps())
    for row in report.rows:
        _tell(f"{row.evaluated.scores.accuracy:.3f}  {row.version} ({row.standing})")
    _tell(f"report: {report.page}")


@app.command("versions")
def show_versions(workload: Workload = "default", as_json: AsJson = False) -> None:
    """List the versions, newest first."""
    with open_context(_settings(), workload=workload).database.read() as session:
        found = versions.list_versions(session, workload=workload)
    if as_json:
        sys.stdout.write(
            json.dumps([json.loads(row.model_dump_json()) for row in found], indent=2) + "\n"
        )
        return
    table = Table(Column("version", no_wrap=True), "status", "accuracy", "created (UTC)", "reason")
    for row in found:
        accuracy = row.performance_metrics.get("accuracy")
        table.add_row(
            escape(row.version),
            row.deployment_status,
            "–" if accuracy is None else f"{accuracy:.3f}",
            f"{row.created_at:%Y-%m-%d %H:%M}",
            escape(row.status_reason or ""),
        )
    console.print(table)


@app.command()
def promote(
    version: Annotated[str | None, typer.Argument(help="Unset: the challenger on trial.")] = None,
    workload: Workload = "default",
    reason: Reason = "promoted by hand",
    generation: Generation = None,
) -> None:
    """Make a version champion now."""

    def change(context: Context) -> None:
        with context.database.write() as session:
            deployment.expect(session, workload, generation=generation)
            by_hand.promote(session, context.act(ACTOR, reason), workload=workload, version=version)

    _change(change, workload=workload)


@app.command()
def rollback(
    workload: Workload = "default",
    reason: Reason = "rolled back by hand",
    generation: Generation = None,
) -> None:
    """End the trial of a challenger; without one, return to the previous champion."""

    def change(context: Context) -> None:
        with context.database.write() as session:
            deployment.expect(session, workload, generation=generation)
            by_hand.roll_back(session, context.act(ACTOR, reason), workload=workload)

    _change(change, workload=workload)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Of the people and their requests.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of the loop.")] = 3,
) -> None:
    """The whole loop with simulated people and clock, on this machine."""
    settings = prepare(load_settings())
    with own_folder(settings):
        environment.apply(settings)
        from flows.demo.run import run_demo

        raise typer.Exit(run_demo(settings, seed=seed, num_rounds=rounds, console=console))


@app.command()
def check() -> None:
    """Check the settings and the database's schema."""
    settings = _settings()
    with closing(Database(settings.resolved_database_url)) as database:
        database.check()
    _tell("settings and database are in order")


def _explain_checks(context: Context, *, workload: str, limit: int) -> None:
    """What each check saw, and what would have had to be for it to fire."""
    with context.database.read() as session:
        found = runs.last_checks(session, workload=workload, limit=limit)
    if not found:
        _tell(f"workload '{workload}' was not checked yet")
    for row in reversed(found):
        _tell(f"{row.checked_at:%Y-%m-%d %H:%M} {row.trigger or 'nothing fired'}: {row.reason}")
        for text in row.facts.get("checks", []):
            _tell(f"  {text}")


def _change(change: Callable[[Context], None], *, workload: str) -> None:
    context = open_context(_settings(), workload=workload)
    change(context)
    with context.database.read() as session:
        desired = deployment.desired(session, workload)
    champion = "the base model" if desired.champion is None else desired.champion.version
    _tell(f"champion: {champion} (generation {desired.generation})")


def _learner(settings: Settings) -> Learner:
    from flows.ray_learner import RayLearner

    return RayLearner(settings)


if __name__ == "__main__":
    main()
