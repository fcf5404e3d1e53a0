"""`kalimtak workload`: the tasks that one installation serves."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows.context import open_context
from registry import deployment, workloads
from registry.settings import load_settings
from serving.naming import public_name

app = typer.Typer(help="The tasks that this installation serves.", no_args_is_help=True)
console = Console()
ACTOR = "cli"


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What clients will ask for as the model.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "added by hand",
) -> None:
    """Add a workload: its own data, versions and trials; the base model serves it at first."""
    context = open_context(load_settings())
    with context.database.write() as session:
        workloads.add(session, context.act(ACTOR, reason), name)
    console.print(f"workload {escape(name)} is served as the model '{name}'", highlight=False)


@app.command("list")
def show() -> None:
    """List the workloads with what serves them."""
    with open_context(load_settings()).database.read() as session:
        found = workloads.created(session)
        states = deployment.all_desired(session)
    name, model = Column("workload", no_wrap=True), Column("model", no_wrap=True)
    table = Table(name, model, "champion", "challenger", "created (UTC)", box=None)
    for workload, created_at in found:
        state = states[workload]
        table.add_row(
            escape(workload),
            escape(public_name(workload)),
            "base model" if state.champion is None else escape(state.champion.version),
            "–"
            if state.challenger is None
            else f"{escape(', '.join(live.version for live in state.challengers))} "
            f"at {state.share:.0%}",
            f"{created_at:%Y-%m-%d %H:%M}",
        )
    console.print(table)
