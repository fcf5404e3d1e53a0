"""Copies one state of the database, and the artifacts that it names, into a folder.

The tables are read in a single snapshot, while others go on writing. Artifacts never change,
and are published before a row names them, so those that the snapshot names can be copied after.
Keys are deleted once nothing uses them: they are copied before the first row is read, too.
"""

import base64
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from sqlalchemy import Connection, Table, inspect, select
from sqlmodel import SQLModel, col

from registry.artifacts import ArtifactStore
from registry.backup_manifest import (
    ARTIFACTS,
    KEY_PATHS,
    KEYS,
    TABLES,
    Manifest,
    TableFile,
    file_digest,
    key_faults,
    key_id,
    table_path,
    write_manifest,
)
from registry.crypto import Keyring
from registry.db import Database
from registry.errors import ArtifactError, BackupError
from registry.folders import whole_folder
from registry.models import AuditHead, Dataset, ModelVersion, QualityScorer

READ_ROWS = 1_000
COMPRESSION = 3
PASSING = frozenset({"replica_status", "alembic_version", "usage_hours", "trial_rows"})
"""Tables that say nothing once the moment has passed, that the manifest stands for, or that
the database or the next look at a trial fills from others."""

Tell = Callable[[str], object]


def make_backup(
    database: Database,
    store_url: str,
    folder: Path,
    *,
    home: Path,
    keyring: Keyring,
    now: datetime,
    include_keys: bool = False,
    tell: Tell = lambda _line: None,
) -> Manifest:
    """Make a backup at `folder`, which must not exist or be empty.

    It is put together beside its place and moved there whole. Raises `BackupError`, or
    `ConflictError` where there is something already.
    """
    try:
        with whole_folder(folder) as partial:
            (partial / ARTIFACTS).mkdir()
            (partial / TABLES).mkdir()
            with _snapshot(database) as connection:
                if include_keys:
                    _copy_keys(home, partial / KEYS)
                revision = MigrationContext.configure(connection).get_current_revision()
                tables = _dump_all(connection, partial, tell)
                digests = _named_artifacts(connection)
                head = connection.execute(select(AuditHead.__table__)).one()  # type: ignore[attr-defined]
            missing = _copy_artifacts(store_url, digests, partial / ARTIFACTS, tell)
            if include_keys:
                _copy_keys(home, partial / KEYS)  # those that were made meanwhile
            manifest = Manifest(
                created_at=now,
                schema_revision=str(revision),
                database=database.engine.dialect.name,
                key_id=key_id(keyring),
                includes_keys=include_keys,
                tables=tables,
                artifacts=tuple(digest for digest in digests if digest not in missing),
                missing_artifacts=missing,
                audit_sequence=head.sequence,
                audit_digest=head.digest,
            ).sealed(keyring)
            if lacking := key_faults(partial, manifest):
                raise BackupError(
                    f"the backup would not be whole: {lacking[0]}: put it into {home} (a backup "
                    "of it), or make the backup again where keys were just rotated"
                )
            write_manifest(partial, manifest)
    except OSError as error:
        raise BackupError(f"cannot write the backup {folder}: {error}") from error
    return manifest


def plain(value: Any) -> Any:
    """A column's value as JSON can hold it."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    """A connection that sees one state of all tables, and holds up nobody."""
    with database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        with connection.begin():
            yield connection


def _dump_all(connection: Connection, partial: Path, tell: Tell) -> dict[str, TableFile]:
    known = {table.name: table for table in SQLModel.metadata.sorted_tables}
    strangers = set(inspect(connection).get_table_names()) - set(known) - PASSING
    if strangers:
        raise BackupError(f"table {min(strangers)} is not known to this code: upgrade kalimtak")
    found = {}
    for name, table in known.items():
        if name not in PASSING:
            found[name] = _dump(connection, table, table_path(partial, name))
            tell(f"{found[name].rows:10} {name}")
    return found


def _dump(connection: Connection, table: Table, path: Path) -> TableFile:
    num_rows = 0
    query = select(table).order_by(*table.primary_key)
    with (
        path.open("wb") as raw,
        gzip.GzipFile(
            filename="", fileobj=raw, mode="wb", compresslevel=COMPRESSION, mtime=0
        ) as file,
        connection.execute(query, execution_options={"yield_per": READ_ROWS}) as result,
    ):
        for rows in result.partitions():
            lines = [json.dumps([plain(value) for value in row]) for row in rows]
            file.write(("\n".join(lines) + "\n").encode())
            num_rows += len(rows)
    columns = tuple(column.name for column in table.columns)
    return TableFile(columns=columns, rows=num_rows, sha256=file_digest(path))


def _named_artifacts(connection: Connection) -> list[str]:
    """All digests, but of what was deleted on purpose."""
    adapters = select(col(ModelVersion.adapter_digest)).where(
        col(ModelVersion.adapter_deleted_at).is_(None)
    )
    datasets = select(col(Dataset.digest)).where(col(Dataset.files_deleted_at).is_(None))
    scorers = select(col(QualityScorer.digest))
    named = (connection.scalars(query) for query in (adapters, datasets, scorers))
    return sorted({digest for digests in named for digest in digests})


def _copy_artifacts(store_url: str, digests: list[str], target: Path, tell: Tell) -> dict[str, str]:
    """Fetch and verify every artifact; those that cannot be had, with the reason."""
    store = ArtifactStore(store_url, cache=target)
    missing = {}
    for digest in digests:
        try:
            store.fetch(digest)
        except ArtifactError as error:
            missing[digest] = str(error)
    tell(f"{len(digests) - len(missing):10} artifacts")
    return missing


def _copy_keys(home: Path, target: Path) -> None:
    """Copy the keys beside those that were copied before."""
    master, fields = KEY_PATHS
    target.mkdir(mode=0o700, exist_ok=True)
    shutil.copy2(home / master, target / master)
    if not (home / fields).is_dir():
        return
    (target / fields).mkdir(mode=0o700, exist_ok=True)
    for path in (home / fields).glob("*.key"):
        with suppress(FileNotFoundError):  # it was deleted meanwhile: nothing uses it any more
            shutil.copy2(path, target / fields / path.name)
