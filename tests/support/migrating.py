"""Moves a database to any revision of its schema."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from registry import migrations


def migrate(connection: Connection, revision: str) -> Path:
    """Bring the schema to `revision`, whichever way that is; the folder of the migrations."""
    folder = Path(next(iter(migrations.__path__)))
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    go = command.upgrade if (current or "") < revision < "base" else command.downgrade
    go(config, revision)
    return folder
