"""`kalimtak audit`: the log of administrative acts and automatic decisions."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from flows.anchoring import read_anchor, write_anchor
from flows.context import Context, open_context
from registry import audit, people
from registry.audit_check import check
from registry.deployment import AUDIT_PURPOSE

app = typer.Typer(help="The log of acts and decisions.", no_args_is_help=True)
console = Console()

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, one entry a line.")]


@app.command("list")
def list_entries(
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Entries, newest first.")] = 20,
    action: Annotated[str | None, typer.Option(help="Only this, such as promote.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this one, such as cli.")] = None,
    subject: Annotated[
        str | None, typer.Option(help="Only about this, such as workload:default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Who did what, and why; newest first."""
    context = open_context()
    actors = None if actor is None else people.written_as(actor, context.keyring)
    with context.database.read() as session:
        found = audit.entries(session, limit=limit, action=action, actors=actors, subject=subject)
        people.reveal(session, found, context.keyring)
    if as_json:
        for row in found:
            sys.stdout.write(row.model_dump_json() + "\n")
        return
    for row in found:
        at = f"{row.at:%Y-%m-%d %H:%M:%S}"
        _print(f"{row.sequence:6}  {at}  {row.action} {row.subject} by {row.actor}")
        if row.details.get("reason"):
            _print(f"        {row.details['reason']}")


@app.command()
def head(
    to: Annotated[
        str | None,
        typer.Option(help="File or URL to write it to; unset, the setting audit.anchor."),
    ] = None,
) -> None:
    """Print where the chain ends, to be kept outside, and write it where the settings say."""
    context = open_context()
    with context.database.read() as session:
        found = audit.head(session, now=context.clock())
    target = to or context.settings.audit.anchor
    if target is not None:
        write_anchor(found, target)
    sys.stdout.write(found.to_json() + "\n")


@app.command()
def verify(
    anchor: Annotated[
        str | None, typer.Option(help="File or URL with a head that was kept outside.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Go through the whole chain; exit code 1 at the first entry that is not as it was written."""
    context = open_context()
    kept = None if anchor is None else read_anchor(anchor)
    with context.database.read() as session:
        found = check(session, keys=_keys(context), anchor=kept)
    fault = found.fault
    if as_json:
        told = {
            "sound": fault is None,
            "entries": found.num_entries,
            "last_digest": found.last_digest,
            "anchored": None if kept is None else kept.sequence,
            "fault": None if fault is None else {"entry": fault.sequence, "what": fault.what},
        }
        sys.stdout.write(json.dumps(told) + "\n")
    elif fault is None:
        since = "" if kept is None else f", and go on from what was anchored at {kept.sequence}"
        console.print(f"{found.num_entries} entries are as they were written{since}")
    else:
        sys.stdout.write(f"entry {fault.sequence} {fault.what}\n")
    if fault is not None:
        raise typer.Exit(1)


def _keys(context: Context) -> list[bytes]:
    """The keys that entries may be sealed with."""
    return [context.keyring.derive(AUDIT_PURPOSE)]


def _print(line: str) -> None:
    console.print(escape(line), highlight=False, soft_wrap=True)
