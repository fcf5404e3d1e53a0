"""`kalimtak erase-user`, `export-user`, `consent`, `erasures` and `keys`: people's rights."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from sqlmodel import col, select

from flows.context import open_context
from flows.erasing import eraser
from flows.steps import PlainSteps
from registry import erasure_report, key_rotation, privacy
from registry.crypto import Keyring
from registry.errors import NotFoundError, SettingsError
from registry.key_rotation import reseal, rotate
from registry.models import EncryptionKey, Erasure
from registry.user_export import export_user
from serving.erasing import SPOOL
from serving.recording.sweeping import keys_in_files

ACTOR = "cli"
keys = typer.Typer(help="The keys of encrypted fields.", no_args_is_help=True)
erasures = typer.Typer(help="Erasures and their reports.", no_args_is_help=True)
console = Console()


class Choice(StrEnum):
    """What a user allows."""

    GRANTED = "granted"
    OPT_OUT = "opt_out"
    NO_TRAINING = "no_training"
    NO_CONTENT = "no_content"


CONSENTS: dict[Choice, privacy.Consent] = {
    Choice.GRANTED: "granted",
    Choice.NO_TRAINING: "no_training",
    Choice.NO_CONTENT: "no_content",
}
User = Annotated[str, typer.Argument(help="The user's id, as your systems know it.")]
To = Annotated[Path | None, typer.Option("--out", help="A file; unset, standard output.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("erase-user")(erase_user)
    app.command("export-user")(export)
    app.command("consent")(consent)
    app.command("retention")(retention)
    app.add_typer(erasures, name="erasures")
    app.add_typer(keys, name="keys")


def erase_user(
    user: User,
    approved_by: Annotated[str, typer.Option(help="Who approved it; stands in the report.")],
    out: To = None,
) -> None:
    """Erase everything that is kept of a user; prints the signed report."""
    with _writing(out) as file:
        report = eraser(open_context()).erase(user, actor=ACTOR, approved_by=approved_by)
        file.write(json.dumps(report, indent=2) + "\n")


def export(user: User, out: To = None) -> None:
    """Everything that is known of a user, as one JSON document."""
    context = open_context()
    with _writing(out) as file:
        with context.database.write() as session:
            privacy.tell_export(session, context.act(ACTOR, "asked for"), user)
        file.writelines(export_user(context.database, context.keyring, user))


def consent(
    user: User,
    choice: Annotated[Choice | None, typer.Argument(help="Unset: only tell.")] = None,
) -> None:
    """Tell or set what a user allows. opt_out: what the setting privacy.opt_out makes of it."""
    context = open_context()
    if choice is not None:
        chosen = CONSENTS.get(choice, context.settings.privacy.opt_out)
        with context.database.write() as session:
            privacy.set_consent(session, context.act(ACTOR, "consent"), user, chosen)
    with context.database.read() as session:
        found = privacy.consent_of(session, context.keyring.pseudonym(user))
    sys.stdout.write(f"{found}\n")


def retention() -> None:
    """Delete what was kept long enough, and finish what erasures left to do."""
    from flows.retention import run_retention

    report = run_retention(open_context(), steps=PlainSteps())
    for name, number in report.counts.items():
        console.print(f"{number:8} {escape(name)}", highlight=False)


@erasures.command("list")
def list_erasures() -> None:
    """All erasures, newest first; nobody's name."""
    with open_context().database.read() as session:
        found = session.exec(select(Erasure).order_by(col(Erasure.requested_at).desc())).all()
    name = Column("id", no_wrap=True)  # to be typed again
    table = Table(name, "requested (UTC)", "approved by", "completed", "scrubbed", box=None)
    for row in found:
        moments = [
            "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
            for moment in (row.requested_at, row.completed_at, row.scrubbed_at)
        ]
        table.add_row(row.id, moments[0], escape(row.approved_by), *moments[1:])
    console.print(table)


@erasures.command("show")
def show_erasure(erasure_id: str) -> None:
    """The report of an erasure."""
    with open_context().database.read() as session:
        row = session.get(Erasure, erasure_id)
    if row is None or row.report is None:
        raise NotFoundError(f"no completed erasure '{erasure_id}' (kalimtak erasures list)")
    sys.stdout.write(json.dumps(row.report, indent=2) + "\n")


@erasures.command("verify")
def verify_report(file: Path) -> None:
    """Check the signature of a report."""
    keyring: Keyring = open_context().keyring
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        is_genuine = erasure_report.is_genuine(report, keyring)
    except (OSError, ValueError, AttributeError) as error:
        raise SettingsError(f"{file} is no report: {error}") from error
    sys.stdout.write("genuine\n" if is_genuine else "NOT genuine: altered, or not from here\n")
    if not is_genuine:
        raise typer.Exit(1)


@keys.command("list")
def list_keys() -> None:
    """The keys that the database was written with, oldest first."""
    context = open_context()
    with context.database.read() as session:
        found = session.exec(select(EncryptionKey).order_by(col(EncryptionKey.created_at))).all()
        numbers = {row.id: key_rotation.uses(session, row.id) for row in found}
    current = context.keyring.fields.current.id
    table = Table("key", "for", "made (UTC)", "values", "state", box=None)
    for row in found:
        fields = row.kind == "fields"
        state = "retired" if row.retired_at else "current" if row.id == current else "older"
        table.add_row(
            row.id,
            "fields" if fields else "all the rest",
            f"{row.created_at:%Y-%m-%d %H:%M}",
            str(numbers[row.id]) if fields else "",
            state if fields else "never changes",
        )
    console.print(table)


@keys.command("rotate")
def rotate_keys() -> None:
    """Make a new key and encrypt every field again with it; goes on where it was killed."""
    context = open_context()
    act = context.act(ACTOR, "keys rotate")
    done = rotate(context.database, act)
    made = "made" if done.is_new else "finished the rotation to"
    sys.stdout.write(f"{made} key {done.key_id}: {done.num_values} values encrypted again\n")
    in_files = keys_in_files(context.settings.home / SPOOL)
    for key_id in key_rotation.retire(context.database, act, in_files=in_files):
        sys.stdout.write(f"key {key_id} is used by nothing any more, and was deleted\n")


@keys.command("reseal")
def reseal_fields() -> None:
    """Encrypt with the current key what is not, texts as privacy.encrypt_texts has it."""
    context = open_context()
    number = reseal(context.database, context.keyring)
    sys.stdout.write(f"{number} values encrypted again\n")
    eraser(context).scrub(thorough=True)


@contextmanager
def _writing(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file for its owner alone, which is there when the block has ended.

    That it can be written is known before the block begins: what that does may not be undone.
    """
    if path is None:
        yield sys.stdout
        return
    if path.is_dir():
        raise SettingsError(f"--out {path} is a folder: name a file")
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
