"""`kalimtak token` and `kalimtak key`: credentials for those who call the endpoint."""

from __future__ import annotations

import sys
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from flows.context import open_context
from flows.times import lifetime
from registry import acts, keys, privacy
from registry.clock import utc_now
from serving.access.tokens import make_signer, make_token

ACTOR = "cli"
key = typer.Typer(help="API keys, for programs.", no_args_is_help=True)
console = Console()


class Role(StrEnum):
    """What a caller may do; each includes those before it."""

    USER = "user"
    REVIEWER = "reviewer"
    ADMIN = "admin"


AsRole = Annotated[Role, typer.Option(help="What the caller may do.")]


def token(
    subject: Annotated[str, typer.Argument(help="The user's id, as your systems know it.")],
    role: AsRole = Role.USER,
    hours: Annotated[float, typer.Option(min=0.01, help="How long it is good.")] = 24,
) -> None:
    """Make a token for one user (HS256)."""
    context = open_context()
    settings, now = context.settings.auth, utc_now()
    good_for = lifetime(hours, timedelta(hours=1), "--hours", now=now)
    user = privacy.subject_of(context.keyring.pseudonym(subject), context.keyring)
    with context.database.write() as session:
        acts.record(
            session,
            context.act(ACTOR, "made by hand"),
            action="create_token",
            subject=f"user:{user}",
            details={"role": role.value, "hours": hours},
        )
    text = make_token(
        make_signer(settings, context.keyring),
        settings,
        subject=subject,
        role=role.value,
        now=now,
        lifetime=good_for,
    )
    sys.stdout.write(text + "\n")
    if not settings.enabled:
        sys.stderr.write("authentication is off: KALIMTAK_AUTH__ENABLED=true turns it on\n")


@key.command()
def create(
    name: Annotated[str, typer.Argument(help="Whom it is for.")],
    role: AsRole = Role.USER,
    subject: Annotated[
        str | None, typer.Option(help="The one user it speaks for; without, it names any.")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.01, help="How long it is good.")] = None,
) -> None:
    """Make a key. It is shown once."""
    context = open_context()
    act = context.act(ACTOR, f"key for {name}")
    good_for = None if days is None else lifetime(days, timedelta(days=1), "--days", now=act.now)
    with context.database.write() as session:
        made = keys.create(
            session,
            act,
            name=name,
            role=role.value,
            subject=subject,
            lifetime=good_for,
        )
    sys.stdout.write(made.text + "\n")
    sys.stderr.write("keep it: it is not shown again\n")


@key.command("list")
def list_all() -> None:
    """All keys; never the keys themselves."""
    context = open_context()
    with context.database.read() as session:
        found = keys.list_keys(session)
    name = Column("prefix", no_wrap=True)  # to be typed again
    table = Table(name, "for", "role", "user", "made (UTC)", "last used", "state", box=None)
    now = utc_now()
    for row in found:
        state = "good"
        if row.revoked_at is not None:
            state = f"revoked {row.revoked_at:%Y-%m-%d}"
        elif row.expires_at is not None:
            word = "expired" if row.expires_at <= now else "good until"
            state = f"{word} {row.expires_at:%Y-%m-%d}"
        used = "–" if row.last_used_at is None else f"{row.last_used_at:%Y-%m-%d %H:%M}"
        made = f"{row.created_at:%Y-%m-%d}"
        table.add_row(
            row.prefix,
            escape(row.name),
            row.role,
            escape(keys.subject_of(row, context.keyring) or "any"),
            made,
            used,
            state,
        )
    console.print(table)


@key.command()
def revoke(prefix: Annotated[str, typer.Argument(help="As `kalimtak key list` shows it.")]) -> None:
    """End a key for good; routers learn of it within seconds."""
    # A key that was pasted as a whole, or up to its secret, is meant as well.
    prefix = prefix.removeprefix(f"{keys.MARK}_").partition("_")[0]
    context = open_context()
    with context.database.write() as session:
        keys.revoke(session, context.act(ACTOR, "revoked"), prefix)
    console.print(f"{prefix} is revoked", highlight=False)
