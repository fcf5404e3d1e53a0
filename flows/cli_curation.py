"""`kalimtak curate`: what people said becomes training data, and a page tells how."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import environment
from flows.context import open_context
from flows.steps import PlainSteps
from registry.models import DEFAULT_WORKLOAD
from registry.settings import load_settings


def curate(
    workload: Annotated[str, typer.Option(help="The task that this is about.")] = DEFAULT_WORKLOAD,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be added.")
    ] = False,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where it runs: here, or on Ray Data.")
    ] = "local",
) -> None:
    """Turn what people said since the last time into training data."""
    settings = load_settings()
    environment.apply(settings)
    from flows.curate import run_curate, show

    context, steps = open_context(settings, workload=workload), PlainSteps()
    report = run_curate(context, workload=workload, dry_run=dry_run, engine=engine, steps=steps)
    page = show(context, report, steps)
    console = Console()
    table = Table("left", "after", box=None)
    for step, left in report.counts.items():
        table.add_row(str(left), escape(step))
    console.print(table)
    for what, rows in report.notes.items():
        console.print(f"{rows:8} {escape(what)}", highlight=False)
    done = "would be added" if dry_run else "added"
    console.print(f"{report.num_added} samples {done}", highlight=False)
    console.print(f"report: {escape(str(page))}", highlight=False, soft_wrap=True)
