"""The database: SQLite (WAL) or PostgreSQL by URL, transactions, schema upgrades.

Every user-visible change is one `Database.write()` block; nothing else commits.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session

from registry.db_errors import DRIVER_MISSING, explain, shown
from registry.errors import DatabaseError
from registry.folders import make_private
from registry.settings_paths import NO_FILE

SQLITE_PATIENCE_S = 30.0
"""How long a lock is waited for where nothing else was asked for."""
CONNECT_PATIENCE_S = 10
"""How long a PostgreSQL server may take to answer at all."""
UPGRADE_LOCK = int.from_bytes(b"kalimtak")
"""Names PostgreSQL's lock that programs take before they look at the schema to upgrade it."""
STATEMENT_PATIENCE = 10
"""A statement on PostgreSQL may take this many times as long as a lock may be waited for."""


class Database:
    """An engine, and the two kinds of transaction on it. Threads may share one."""

    def __init__(self, url: str, *, patience_s: float | None = None) -> None:
        """Open `url`. Raises `DatabaseError` where it is not one that can be used.

        `patience_s`: how long to wait for a lock or a connection before giving up; unset, as
        long as batch work may.
        """
        self.url = url
        self.engine = _create_engine(url, patience_s)
        self._write_engine = self.engine.execution_options(kalimtak_write=True)
        self._read_engine = self.engine
        if self.engine.dialect.name == "postgresql":
            self._read_engine = self.engine.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database and changes nothing."""
        with Session(self._read_engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self, *, bulk: bool = False) -> Iterator[Session]:
        """One transaction: committed when the block ends, rolled back when it raises.

        On SQLite it takes the write lock at its start, so that what it has read
        cannot change under it. `bulk`: it writes tens of thousands of rows, all over the
        indexes, and SQLite may keep 64 MiB of them in memory meanwhile.
        """
        with (
            Session(self._write_engine, expire_on_commit=False) as session,
            session.begin(),
            _large_cache(session) if bulk else nullcontext(),
        ):
            yield session

    def upgrade(self) -> None:
        """Bring the schema to this code's version. Raises `DatabaseError` if it is newer.

        Of several programs at once one does, and the others wait for it.
        """
        try:
            with (
                self._write_engine.connect() as connection,
                _alembic(connection) as config,
            ):
                _take_turns(connection)
                _refuse_newer(connection, config)
                command.upgrade(config, "head")
                connection.commit()
        except SQLAlchemyError as error:
            raise explain(error, self.url) from error

    def check(self) -> None:
        """Raise `DatabaseError` unless it can be used and its schema is exactly this code's."""
        try:
            with self.engine.connect() as connection, _alembic(connection) as config:
                _refuse_newer(connection, config)
                current = MigrationContext.configure(connection).get_current_revision()
                head = ScriptDirectory.from_config(config).get_current_head()
        except SQLAlchemyError as error:
            raise explain(error, self.url) from error
        if current != head:
            raise DatabaseError(
                f"database {shown(self.url)} has schema {current}, this code needs {head}: "
                "run 'kalimtak db upgrade'"
            )

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


@contextmanager
def _large_cache(session: Session) -> Iterator[None]:
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        yield
        return
    before = connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
    connection.exec_driver_sql("PRAGMA cache_size = -65536")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size = {before}")


def open_database(url: str) -> Database:
    """Open `url` and upgrade its schema. Raises `DatabaseError`."""
    database = Database(url)
    try:
        database.upgrade()
    except BaseException:
        database.close()
        raise
    return database


def _create_engine(url: str, patience_s: float | None) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # It is not shown: it may hold a password.
        raise DatabaseError(
            "the database URL cannot be read: use sqlite:///path or postgresql://user@host/name"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database.startswith(NO_FILE):
            raise DatabaseError(f"'{url}' names no file: use sqlite:///path")
        return _create_sqlite(url, Path(parsed.database), patience_s or SQLITE_PATIENCE_S)
    if backend == "postgresql":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        try:
            return _create_postgresql(parsed, patience_s)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise DatabaseError(f"{DRIVER_MISSING} ({error})") from error
    raise DatabaseError(f"database '{backend}' is not supported: use sqlite or postgresql")


def _create_postgresql(url: URL, patience_s: float | None) -> Engine:
    if patience_s is None:
        timeout = {"connect_timeout": CONNECT_PATIENCE_S}
        return create_engine(url, pool_pre_ping=True, connect_args=timeout, hide_parameters=True)
    lock_ms = math.ceil(patience_s * 1000)
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=patience_s,
        hide_parameters=True,
        connect_args={
            "connect_timeout": max(2, math.ceil(patience_s)),  # libpq knows no shorter one
            "tcp_user_timeout": STATEMENT_PATIENCE * lock_ms,
            "options": f"-c lock_timeout={lock_ms} "
            f"-c statement_timeout={STATEMENT_PATIENCE * lock_ms}",
        },
    )


def _create_sqlite(url: str, path: Path, patience_s: float) -> Engine:
    try:
        make_private(path.parent)
        if not path.exists():  # SQLite would let others read it; its journals follow the file
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise DatabaseError(f"cannot create {path}: {error.strerror}") from error
    # Errors, which are logged, tell no values: among them are people's texts.
    engine = create_engine(
        url,
        pool_timeout=patience_s,
        connect_args={"timeout": patience_s},
        hide_parameters=True,
    )

    # pysqlite's own transaction handling begins too late for a consistent read and
    # cannot take the write lock up front, so it is switched off and done here.
    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={math.ceil(patience_s * 1000)}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("kalimtak_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def _alembic(connection: Connection) -> Iterator[Config]:
    with as_file(files("registry") / "migrations") as folder:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        yield config


def _take_turns(connection: Connection) -> None:
    """Wait for who is upgrading; SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(UPGRADE_LOCK)))


def _refuse_newer(connection: Connection, config: Config) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise DatabaseError(
            f"the database has schema {current}, which is newer than this code: "
            "upgrade kalimtak, or restore an older backup"
        )


def is_unavailable(error: BaseException) -> bool:
    """Whether the database could not be used at all, rather than refused the statement."""
    return isinstance(error, OperationalError | PoolTimeoutError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def is_refusal(error: BaseException) -> bool:
    """Whether these rows will never be taken: a constraint, or a value that does not fit.

    Everything else that a database says (locked, full, read-only, gone, schema behind) can
    pass, and the same rows may be offered again.
    """
    if isinstance(error, IntegrityError | DataError | InterfaceError):
        return not error.connection_invalidated
    if isinstance(error, StatementError):  # a value that no driver was even given
        return not isinstance(error, DBAPIError)
    return not isinstance(error, SQLAlchemyError | OSError)
