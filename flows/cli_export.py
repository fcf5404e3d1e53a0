"""`kalimtak export`: interactions, feedback and datasets for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from flows.context import Context, open_context
from flows.errors import ExportError
from flows.exporting import Wanted, export_dataset, export_feedback, export_interactions
from flows.times import moment
from registry import acts
from registry.folders import refuse_content

ACTOR = "cli"
console = Console()


def export(
    what: Annotated[
        Literal["interactions", "feedback", "dataset"], typer.Argument(help="What to export.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the files.")],
    format: Annotated[Literal["parquet", "jsonl"], typer.Option(help="Of the files.")] = "parquet",
    workload: Annotated[str, typer.Option(help="The task that this is about.")] = "default",
    since: Annotated[str | None, typer.Option(help="From this time on (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option(help="Up to this time.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A dataset's id; unset, the latest one.")
    ] = None,
    include_opted_out: Annotated[
        bool, typer.Option("--include-opted-out", help="Also of people who opted out of training.")
    ] = False,
) -> None:
    """Write files that datasets.load_dataset reads. People are pseudonyms in them."""
    context = open_context(workload=workload)
    wanted = Wanted(
        workload=workload,
        format=format,
        folder=out,
        since=None if since is None else moment(since, "--since"),
        until=None if until is None else moment(until, "--until"),
        include_opted_out=include_opted_out,
    )
    refuse_content(out)
    _record(context, wanted, what)
    try:
        if what == "dataset":
            num_rows, num_left_out = export_dataset(context, wanted, dataset_id=dataset)
        else:
            write = export_interactions if what == "interactions" else export_feedback
            num_rows, num_left_out = write(context, wanted), 0
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error}") from error
    left_out = f", {num_left_out} erased or opted out since left out" if num_left_out else ""
    console.print(escape(f"{num_rows} rows in {out}{left_out}"), highlight=False, soft_wrap=True)


def _record(context: Context, wanted: Wanted, what: str) -> None:
    with context.database.write() as session:
        acts.record(
            session,
            context.act(ACTOR, "exported by hand"),
            action="export",
            subject=f"workload:{wanted.workload}",
            details={
                "what": what,
                "folder": wanted.folder.name,
                "include_opted_out": wanted.include_opted_out,
            },
        )
