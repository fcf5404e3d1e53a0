"""`kalimtak history`: what was in production when, and who answered a request."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlmodel import Session

from flows.context import open_context
from flows.times import moment
from registry import history, people
from registry.crypto import Keyring
from registry.models import ProductionPeriod

BASE = "the base model"
console = Console()


def show_history(
    workload: Annotated[str, typer.Option(help="The task that this is about.")] = "default",
    since: Annotated[str | None, typer.Option(help="From this time on (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option(help="Up to this time.")] = None,
    at: Annotated[str | None, typer.Option(help="Only what served at this time.")] = None,
    interaction: Annotated[
        str | None, typer.Option(help="Who answered this request (an interaction's id).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Periods, newest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Which version was in production, at what share, from when to when and why."""
    context = open_context(workload=workload)
    with context.database.read() as session:
        if interaction is not None:
            answered = history.answered(session, interaction)
            _name(session, [answered.production.period], context.keyring)
            _tell_answered(answered, as_json=as_json)
        elif at is not None:
            found = history.at(session, moment(at, "--at"), workload=workload)
            _name(session, [found.period], context.keyring)
            _tell_moment(found, as_json=as_json)
        else:
            rows = history.periods(
                session,
                workload=workload,
                since=None if since is None else moment(since, "--since"),
                until=None if until is None else moment(until, "--until"),
                limit=limit,
            )
            _name(session, rows, context.keyring)
            _tell_periods(list(rows), as_json=as_json)


def _name(session: Session, rows: Sequence[ProductionPeriod | None], keyring: Keyring) -> None:
    people.reveal(session, [row for row in rows if row is not None], keyring)


def _tell_periods(rows: list[ProductionPeriod], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps([_plain(row) for row in rows], indent=2) + "\n")
        return
    for row in rows:
        to = "now" if row.to_at is None else f"{row.to_at:%Y-%m-%d %H:%M:%S}"
        change = f"{row.action or 'changed'} by {row.actor}"
        _print(f"{row.from_at:%Y-%m-%d %H:%M:%S} → {to:19}  {_served(row)}")
        _print(f"    {change}: {row.reason}")
    if not rows:
        _print(f"{BASE}: nothing was decided in this time")


def _served(period: ProductionPeriod) -> str:
    # Some may keep the base model after a promotion, too.
    beside = period.challenger or (BASE if period.share else None)
    several = ", ".join([beside or "", *(period.rivals or [])])
    trial = f", {several} on {period.share:.0%}" if beside else ""
    return f"{period.version or BASE}{trial}"


def _print(line: str) -> None:
    console.print(escape(line), highlight=False, soft_wrap=True)


def _tell_moment(found: history.InProduction, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(_moment_json(found), indent=2) + "\n")
        return
    _print_pairs({"at": f"{found.moment:%Y-%m-%d %H:%M:%S} UTC", **_in_production(found)})


def _tell_answered(found: history.Answered, *, as_json: bool) -> None:
    if as_json:
        told = {**asdict(found), "production": _moment_json(found.production)}
        sys.stdout.write(json.dumps(told, indent=2, default=str) + "\n")
        return
    who = found.version or found.external_model or BASE
    _print_pairs(
        {
            "interaction": found.interaction_id,
            "at": f"{found.created_at:%Y-%m-%d %H:%M:%S} UTC",
            "answered by": f"{who} ({found.role}, {found.source})",
            "adapter": found.adapter_digest,
            "trained on": found.training_dataset_id,
            "experiment": found.experiment_id,
            **_in_production(found.production),
        }
    )


def _in_production(found: history.InProduction) -> dict[str, str | None]:
    period = found.period
    if period is None:
        return {"in production": f"{BASE}: nothing had been decided yet"}
    return {
        "in production": _served(period),
        "since": f"{period.from_at:%Y-%m-%d %H:%M:%S} UTC",
        "by": f"{period.actor}: {period.action or 'a change'}",
        "reason": period.reason,
    }


def _print_pairs(pairs: dict[str, str | None]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in pairs.items():
        if value is not None:
            table.add_row(name, escape(value))
    console.print(table)


def _moment_json(found: history.InProduction) -> dict[str, Any]:
    return {
        "workload": found.workload,
        "moment": found.moment.isoformat(),
        "period": None if found.period is None else _plain(found.period),
    }


def _plain(row: ProductionPeriod) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(row.model_dump_json())
    return told
