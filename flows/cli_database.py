"""`kalimtak db`: the schema of the database."""

from __future__ import annotations

import sys
from contextlib import closing

import typer

from registry.db import Database, open_database
from registry.settings import load_settings

app = typer.Typer(help="The database.", no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Bring the database's schema to this version; what is in it stays."""
    open_database(load_settings().resolved_database_url).close()
    sys.stdout.write("the database is up to date\n")


@app.command()
def check() -> None:
    """Check that the database can be used, and that its schema is this version's."""
    with closing(Database(load_settings().resolved_database_url)) as database:
        database.check()
    sys.stdout.write("the database is in order\n")
