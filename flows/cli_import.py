"""`kalimtak import`: what other systems have answered, from a file.

What reads and scores is imported by the command itself, so that the others start sooner.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from flows.context import open_context
from flows.errors import UnreadableFileError
from registry.models import DEFAULT_WORKLOAD
from registry.settings import load_settings

if TYPE_CHECKING:
    from flows.intake.importing import ImportReport, Request

MAX_SHOWN_REASONS = 10


def import_file(
    file: Annotated[Path, typer.Argument(help="JSONL (also .gz), CSV, Parquet or usage.db.")],
    workload: Annotated[str, typer.Option(help="The task that it belongs to.")] = DEFAULT_WORKLOAD,
    format: Annotated[
        Literal["auto", "openai", "chatml", "usage", "columns"],
        typer.Option(help="What the rows are; auto looks at the first."),
    ] = "auto",
    map: Annotated[
        list[str] | None, typer.Option(help="FIELD=COLUMN, such as input_text=prompt; repeatable.")
    ] = None,
    nature: Annotated[
        Literal["auto", "chat", "prompts"],
        typer.Option("--as", help="Chats, or requests for structured prompts."),
    ] = "auto",
    encoding: Annotated[str, typer.Option(help="Of text files.")] = "utf-8",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check.")] = False,
    refused: Annotated[
        Path | None, typer.Option(help="JSONL file for the rows that are refused, and why.")
    ] = None,
) -> None:
    """Import requests with their answers and feedback; a second time adds only what is new."""
    from flows.intake.importing import Importer, Request

    context = open_context(load_settings(), workload=workload)
    request = Request(
        path=file,
        workload=workload,
        refused_path=refused or context.folder("imports") / f"{file.name}.refused.jsonl",
        format=None if format == "auto" else format,
        mapping=_mapping(map or []),
        nature=None if nature == "auto" else nature,
        encoding=encoding,
        dry_run=dry_run,
    )
    importer = Importer(context, request)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(file.name), total=importer.source.total)
        report = importer.run(lambda done: bar.update(task, completed=done))
    _tell(report, request, Console(file=sys.stdout))


def _mapping(options: list[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    wrong = [
        option
        for option, (name, _, column) in zip(options, pairs, strict=True)
        if not column or not name
    ]
    if wrong:
        raise UnreadableFileError(f"--map {wrong[0]}: write it as FIELD=COLUMN")
    return {name: column for name, _, column in pairs}


def _tell(report: ImportReport, request: Request, console: Console) -> None:
    done = "would be imported" if request.dry_run else "imported"
    table = Table(show_header=False, box=None)
    table.add_row("rows read", str(report.read), f"as {report.format}, {report.nature}")
    table.add_row(done, str(report.imported), f"workload {escape(request.workload)}")
    table.add_row("there already", str(report.known), "")
    table.add_row("with feedback", str(report.feedback), "new feedback, dated now")
    table.add_row("refused", str(report.refused), _place_of_reasons(report, request))
    if report.erased:
        table.add_row("left out", str(report.erased), "of users who were erased since")
    if report.naive_times:
        table.add_row("time zone assumed", str(report.naive_times), "times without one: UTC")
    if report.without_time:
        table.add_row("without a time", str(report.without_time), "dated like the file")
    console.print(table)
    if report.reasons:
        reasons = Table("rows", "refused because", box=None)
        for reason, number in report.reasons.most_common(MAX_SHOWN_REASONS):
            reasons.add_row(str(number), escape(reason))
        console.print(reasons)


def _place_of_reasons(report: ImportReport, request: Request) -> str:
    return f"see {escape(str(request.refused_path))}" if report.refused else ""
