"""`kalimtak backup` and `kalimtak restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from flows.context import open_context
from flows.erasing import eraser
from flows.local import launch
from registry import acts, backup, erasure, erasure_report
from registry.artifacts import ArtifactStore
from registry.backup_manifest import Manifest, faults, key_faults, key_id, read_manifest
from registry.clock import new_id, utc_now
from registry.crypto import KEY_FILE, Keyring, load_keyring
from registry.db import Database
from registry.deployment import Act
from registry.erasure_ledger import reports_in
from registry.errors import BackupError
from registry.folders import refuse_content
from registry.restore import Restored, publish_artifacts, restore_database, take_keys
from registry.settings import Settings, load_settings

ACTOR = "cli"
SHOWN_FAULTS = 10
console = Console()
Folder = Annotated[Path, typer.Argument(help="The backup's folder.")]


class _BackupGroup(TyperGroup):
    """`kalimtak backup DIR` is short for `kalimtak backup create DIR`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["create", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_BackupGroup,
    help="Back up database and artifacts: kalimtak backup DIR.",
    no_args_is_help=True,
)


@app.command()
def create(
    folder: Folder,
    include_keys: Annotated[
        bool, typer.Option("--include-keys", help="Also the keys; without them it is unreadable.")
    ] = False,
) -> None:
    """Copy one state of the database, and its artifacts, into a new folder."""
    refuse_content(folder)
    context = open_context()
    with context.database.write() as session:
        acts.record(
            session,
            context.act(ACTOR, "made by hand"),
            action="backup",
            subject=f"folder:{folder.name}",
            details={"includes_keys": include_keys},
        )
    manifest = backup.make_backup(
        context.database,
        context.settings.resolved_artifacts_url,
        folder,
        home=context.settings.home,
        keyring=context.keyring,
        now=context.clock(),
        include_keys=include_keys,
        tell=_tell,
    )
    for digest, reason in manifest.missing_artifacts.items():
        _tell(f"left out: {digest}: {reason}")
    _tell(f"backed up to {folder}, audit log up to entry {manifest.audit_sequence}")
    if include_keys:
        _tell("it holds the keys: whoever has it can read everything")
    else:
        _tell(f"the keys are not in it: keep {context.settings.home / KEY_FILE} elsewhere")


@app.command()
def verify(folder: Folder) -> None:
    """Check a backup against its manifest; exit code 1 where something is not as it was."""
    settings = load_settings()
    manifest = read_manifest(folder)
    keyring = _own_keyring(settings, manifest)
    found = faults(folder, manifest, keyring=keyring) or key_faults(folder, manifest)
    for fault in found[:SHOWN_FAULTS]:
        _tell(fault)
    if found:
        _tell(f"{len(found)} faults: this backup cannot be restored as it is")
        raise typer.Exit(1)
    _tell(
        f"{sum(table.rows for table in manifest.tables.values())} rows in "
        f"{len(manifest.tables)} tables and {len(manifest.artifacts)} artifacts are as they were "
        f"on {manifest.created_at:%Y-%m-%d %H:%M} UTC"
    )
    if keyring is None:
        _tell("its seal was not looked at: the key that it was made with is not here")


def restore(
    folder: Folder,
    force: Annotated[
        bool, typer.Option("--force", help="Lose what the database holds now.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")] = "",
) -> None:
    """Bring a backup back into an empty database, SQLite or PostgreSQL."""
    settings = load_settings()
    with launch.at_rest(settings):
        done, because = _bring_back(settings, folder, force=force, reason=reason)
    _tell(f"{done.num_rows} rows and {done.num_artifacts} artifacts are back; {because}")
    for run in done.repairs.interrupted_trainings:
        _tell(f"training {run} was running then: it counts as failed")
    for version in done.repairs.withdrawn_versions:
        _tell(f"version {version} cannot be served: its adapter is not in the backup")
    _tell_withdrawals(done)
    if done.repairs.audit_fault is not None:
        fault = done.repairs.audit_fault
        _tell(
            "the audit log was not sound when it was backed up: "
            f"entry {fault.sequence} {fault.what}"
        )


def _tell_withdrawals(done: Restored) -> None:
    held = done.withdrawals
    if held.num_keys:
        _tell(f"{held.num_keys} API keys that were revoked since the backup stay revoked")
    if held.num_people:
        _tell(f"what {held.num_people} people have allowed or refused since the backup holds")
    if not done.has_replaced:
        _tell(
            "no database was replaced that could tell what was revoked or refused since the "
            "backup: revoke such keys again, and have people's opt-outs told again"
        )


def _bring_back(
    settings: Settings, folder: Path, *, force: bool, reason: str
) -> tuple[Restored, str]:
    """What was done, and why, as the audit log has it."""
    manifest = read_manifest(folder)
    keyring = take_keys(folder, manifest, settings.home)
    found = faults(folder, manifest, keyring=keyring)
    if found:
        raise BackupError(f"{folder} cannot be restored: {found[0]} (kalimtak backup verify)")
    because = f"restored from the backup of {manifest.created_at:%Y-%m-%d %H:%M} UTC"
    act = Act(ACTOR, f"{because}: {reason}" if reason else because, utc_now(), keyring, new_id)
    done = _restore(settings, folder, manifest, act, force=force)
    _erase_again(done)
    return done, because


def _restore(
    settings: Settings, folder: Path, manifest: Manifest, act: Act, *, force: bool
) -> Restored:
    database = Database(settings.resolved_database_url)
    store = ArtifactStore(settings.resolved_artifacts_url, cache=settings.home / "cache")
    publish_artifacts(folder, manifest, store)
    try:
        return restore_database(
            folder,
            manifest,
            database,
            store,
            act,
            force=force,
            erasures=reports_in(settings.home / erasure_report.FOLDER),
        )
    finally:
        database.close()


def _erase_again(done: Restored) -> None:
    """Finish the erasures of people whom the backup has brought back, or was about to forget."""
    carried = done.erasures
    if carried.num_erasures:
        _tell(f"{carried.num_erasures} erasures that the backup did not know hold again")
    if not carried.num_pending:
        return
    context = open_context()
    with context.database.read() as session:
        pending = erasure.pending(session)
    for row in pending:
        eraser(context).resume(row)
    _tell(
        f"{len(pending)} people are erased again, whom the backup had brought back or whose "
        "erasure was under way"
    )


def _own_keyring(settings: Settings, manifest: Manifest) -> Keyring | None:
    """The installation's keys, where they are those of the backup."""
    if not (settings.home / KEY_FILE).exists():
        return None
    keyring = load_keyring(settings.home)
    return keyring if key_id(keyring) == manifest.key_id else None


def _tell(line: str) -> None:
    console.print(escape(line), highlight=False, soft_wrap=True)
