"""The commands of the record: audit, history, lineage, backup, restore and export."""

from __future__ import annotations

import typer

from flows import cli_audit, cli_backup, cli_export, cli_history, cli_lineage


def add_to(app: typer.Typer) -> None:
    """Give the program these commands."""
    app.add_typer(cli_audit.app, name="audit")
    app.command("history")(cli_history.show_history)
    app.command("lineage")(cli_lineage.show_lineage)
    app.add_typer(cli_backup.app, name="backup")
    app.command("restore")(cli_backup.restore)
    app.command("export")(cli_export.export)
