"""Brings a backup back: the database in one transaction, into SQLite or PostgreSQL alike."""

import base64
import gzip
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, inspect
from sqlmodel import Session, SQLModel, col, select

from registry import key_rotation
from registry.artifacts import ArtifactStore
from registry.backup_manifest import ARTIFACTS, KEY_PATHS, KEYS, Manifest, key_id, table_path
from registry.crypto import Keyring, load_keyring
from registry.db import Database
from registry.deployment import Act
from registry.erasure_ledger import CarriedOver, Report, carry_over, reports_of, wishes_of
from registry.errors import BackupError, KeyringError
from registry.folders import make_private
from registry.models import EncryptionKey
from registry.models.columns import UtcDateTime
from registry.restored_state import Repairs, settle
from registry.withdrawals import HeldAgain, hold_again, withdrawals_of

WRITE_ROWS = 1_000
MADE_AT_START = frozenset(
    {
        "alembic_version",
        "audit_head",
        "deployment_state",
        "encryption_keys",
        "replica_status",
        "workloads",
    }
)
"""Tables that have rows as soon as a program has looked at an installation."""

OWN_FUNCTIONS = """
SELECT oid::regprocedure::text FROM pg_proc
WHERE pronamespace = current_schema()::regnamespace
AND NOT EXISTS (SELECT 1 FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
"""
"""What migrations have made beside tables; what extensions have made stays."""


@dataclass(frozen=True)
class Restored:
    """What a restore has done."""

    num_rows: int
    num_artifacts: int
    repairs: Repairs
    erasures: CarriedOver
    withdrawals: HeldAgain
    has_replaced: bool
    """False: there was nothing that could have told what happened since the backup."""


def take_keys(folder: Path, manifest: Manifest, home: Path) -> Keyring:
    """The installation's keys; put into `home` from the backup where there are none.

    Raises `BackupError` where `home` has another key, or there is none.
    """
    if not (home / KEY_PATHS[0]).exists():
        if not manifest.includes_keys:
            raise BackupError(
                f"the backup was made without its keys: put the installation's {KEY_PATHS[0]} "
                f"(and its folder {KEY_PATHS[1]}, if it had one) into {home} first"
            )
        make_private(home)
        for name in reversed(KEY_PATHS):  # secret.key last: with it, all are there
            source = folder / KEYS / name
            if source.is_dir():
                shutil.copytree(source, home / name, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy2(source, home / name)
    keyring = load_keyring(home)
    if key_id(keyring) != manifest.key_id:
        raise BackupError(
            f"{home / KEY_PATHS[0]} is not the key that the backup was made with "
            f"({key_id(keyring)}, not {manifest.key_id}): nothing in it could be read"
        )
    return keyring


def publish_artifacts(folder: Path, manifest: Manifest, store: ArtifactStore) -> None:
    """Put the backup's artifacts into the store; what is there already stays."""
    for digest in manifest.artifacts:
        store.publish(folder / ARTIFACTS / digest)


def restore_database(
    folder: Path,
    manifest: Manifest,
    database: Database,
    store: ArtifactStore,
    act: Act,
    *,
    force: bool,
    erasures: Sequence[Report] = (),
) -> Restored:
    """Replace everything in `database` by the backup, or change nothing.

    `erasures`: reports of some that the backup may not know; those in the database that is
    replaced count too. They hold again, or are begun anew for the eraser to finish. Keys that
    it knows as revoked stay so, and what its users have allowed last holds.

    `folder` was verified, and its artifacts are in `store`. Raises `BackupError` where the
    database holds something and `force` is not given, or where the backup is newer than this
    code.
    """
    engine = database.engine.execution_options(kalimtak_write=True)
    with engine.connect() as connection, connection.begin(), _alembic(connection) as config:
        _refuse_newer(manifest, config)
        content = _content(connection)
        if content is not None and not force:
            url = database.engine.url.render_as_string(hide_password=True)
            raise BackupError(
                f"{url} is not empty ({content} has rows): name another database "
                "(KALIMTAK_DATABASE_URL), or give --force to lose what is in it"
            )
        generations = _generations(connection)
        erasures = [*erasures, *reports_of(connection)]
        wishes = wishes_of(connection, act.keyring)
        former = withdrawals_of(connection)
        _empty(connection)
        command.upgrade(config, manifest.schema_revision)
        num_rows = _insert_all(connection, folder, manifest)
        command.upgrade(config, "head")
        with Session(connection, expire_on_commit=False) as session:
            _bring_keys(session, folder, act)
            repairs = settle(session, act, manifest, store, generations)
            carried = carry_over(session, act, erasures, wishes)
            # Afterwards: who opted out may be somebody new, whom no erasure is about.
            held = hold_again(session, act, former)
            session.flush()
    return Restored(
        num_rows, len(manifest.artifacts), repairs, carried, held, has_replaced=content is not None
    )


@contextmanager
def _alembic(connection: Connection) -> Iterator[Config]:
    with as_file(files("registry") / "migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        config.attributes["connection"] = connection
        yield config


def _refuse_newer(manifest: Manifest, config: Config) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if manifest.schema_revision not in known:
        raise BackupError(
            f"the backup has schema {manifest.schema_revision}, which is newer than this code: "
            "upgrade kalimtak"
        )


def _content(connection: Connection) -> str | None:
    """A table with rows that tell of use."""
    for name in inspect(connection).get_table_names():
        if name in MADE_AT_START:
            continue
        if connection.execute(
            sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1)
        ).first():
            return name
    return None


def _bring_keys(session: Session, folder: Path, act: Act) -> None:
    """Take from the backup the keys that were retired since, and that its fields need.

    Raises `BackupError` where it has them not, or where they cannot be taken.
    """
    fields = act.keyring.fields
    listed = session.exec(
        select(EncryptionKey).where(
            EncryptionKey.kind == "fields", col(EncryptionKey.retired_at).is_(None)
        )
    )
    for row in listed.all():
        if fields.get(row.id) is not None:
            continue
        if key_rotation.uses(session, row.id) == 0:
            row.retired_at = act.now
            session.add(row)
            continue
        try:
            is_here = fields.adopt(folder / KEYS / KEY_PATHS[1], row.id)
        except KeyringError as error:
            raise BackupError(str(error)) from error
        if not is_here:
            raise BackupError(
                f"fields in the backup are encrypted with key {row.id}, which is not here: put its "
                f"file into the folder {KEY_PATHS[1]} of the home folder"
            )


def _generations(connection: Connection) -> dict[str, int]:
    """What replicas of the database as it is may have followed, by workload."""
    if "deployment_state" not in inspect(connection).get_table_names():
        return {}
    rows = connection.execute(sa.text("SELECT workload, generation FROM deployment_state"))
    return {row.workload: row.generation for row in rows}


def _empty(connection: Connection) -> None:
    present = MetaData()
    present.reflect(connection)
    present.drop_all(connection)
    if connection.dialect.name == "postgresql":
        for function in connection.scalars(sa.text(OWN_FUNCTIONS)).all():
            connection.execute(sa.text(f"DROP FUNCTION {function}"))


def _insert_all(connection: Connection, folder: Path, manifest: Manifest) -> int:
    present = MetaData()
    present.reflect(connection)
    # Migrations leave rows of their own behind.
    for table in reversed(present.sorted_tables):
        if table.name != "alembic_version":
            connection.execute(sa.delete(table))
    num_rows = 0
    for table in present.sorted_tables:
        if table.name in manifest.tables:
            columns = manifest.tables[table.name].columns
            num_rows += _insert(connection, table, columns, table_path(folder, table.name))
    return num_rows


def _insert(connection: Connection, present: sa.Table, columns: tuple[str, ...], path: Path) -> int:
    """Insert a file's rows. Columns that refer to the table itself are filled afterwards."""
    types = _types(present, columns)
    table = sa.table(present.name, *(sa.column(name, kind) for name, kind in types.items()))
    decode = [_decoder(kind) for kind in types.values()]
    own = [name for name in columns if _refers_to_itself(present, name)]
    keys = [column.name for column in present.primary_key]
    later: list[dict[str, Any]] = []
    num_rows = 0
    for lines in _batches(path):
        rows = []
        for line in lines:
            values = json.loads(line)
            row = {
                name: None if value is None else read(value)
                for name, read, value in zip(columns, decode, values, strict=True)
            }
            if any(row[name] is not None for name in own):
                later.append({f"_{name}": row[name] for name in (*keys, *own)})
                row |= dict.fromkeys(own)
            rows.append(row)
        connection.execute(sa.insert(table), rows)
        num_rows += len(rows)
    if later:
        update = sa.update(table).where(
            *(table.c[name] == sa.bindparam(f"_{name}") for name in keys)
        )
        connection.execute(update.values({name: sa.bindparam(f"_{name}") for name in own}), later)
    return num_rows


def _types(present: sa.Table, columns: tuple[str, ...]) -> Mapping[str, sa.types.TypeEngine[Any]]:
    """The product's own types where it still knows the column, else the database's."""
    known = SQLModel.metadata.tables.get(present.name)
    return {
        name: known.c[name].type if known is not None and name in known.c else present.c[name].type
        for name in columns
    }


def _decoder(kind: sa.types.TypeEngine[Any]) -> Callable[[Any], Any]:
    if isinstance(kind, UtcDateTime | sa.DateTime):
        return datetime.fromisoformat
    if isinstance(kind, sa.Date):
        return date.fromisoformat
    if isinstance(kind, sa.LargeBinary):
        return base64.b64decode
    return lambda value: value


def _refers_to_itself(present: sa.Table, name: str) -> bool:
    return any(key.column.table is present for key in present.c[name].foreign_keys)


def _batches(path: Path) -> Iterator[list[bytes]]:
    with gzip.open(path, "rb") as file:
        while batch := list(islice(file, WRITE_ROWS)):
            yield batch
