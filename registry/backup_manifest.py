"""What a backup says of itself, and whether its files are what it says.

DIR/manifest.json            written last: a folder without it is no backup
DIR/tables/<table>.jsonl.gz  a row a line, as an array in the order of the manifest's columns
DIR/artifacts/<digest>/      adapters and datasets
DIR/keys/                    only where it was asked for
"""

import gzip
import hashlib
import hmac
import json
import zlib
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from registry.artifacts import digest_of
from registry.audit_digest import key_id_of
from registry.crypto import Keyring
from registry.errors import ArtifactError, BackupError, KeyringError
from registry.field_keys import FieldKeys, read_key
from registry.models import EncryptionKey

MANIFEST_FILE = "manifest.json"
TABLES, ARTIFACTS, KEYS = "tables", "artifacts", "keys"
KEY_PATHS = ("secret.key", "keys")
"""Files and folders in an installation's home that hold its keys."""
PURPOSE = "backup"
CHUNK_BYTES = 1 << 20


class TableFile(BaseModel):
    """One table's rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...]
    rows: int
    sha256: str


class Manifest(BaseModel):
    """What is in a backup. `seal` is an HMAC of all the rest with the installation's key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    created_at: datetime
    schema_revision: str
    database: str
    """What it was taken from: sqlite or postgresql; it can be restored into either."""
    key_id: str
    includes_keys: bool
    tables: dict[str, TableFile]
    artifacts: tuple[str, ...]
    missing_artifacts: dict[str, str]
    """Digests that the database names and the store did not give, and why."""
    audit_sequence: int
    audit_digest: str
    """Where the audit chain ended."""
    seal: str = ""

    def sealed(self, keyring: Keyring) -> "Manifest":
        """This manifest with its seal."""
        return self.model_copy(update={"seal": self._seal(keyring)})

    def is_sealed_by(self, keyring: Keyring) -> bool:
        """Whether the manifest is as it was written, with this key."""
        return hmac.compare_digest(self.seal, self._seal(keyring))

    def _seal(self, keyring: Keyring) -> str:
        content = self.model_dump_json(exclude={"seal"})
        return hmac.new(keyring.derive(PURPOSE), content.encode(), hashlib.sha256).hexdigest()


def key_id(keyring: Keyring) -> str:
    """Names the key that a backup needs."""
    return key_id_of(keyring.derive(PURPOSE))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup. Raises `BackupError` where there is none that can be read."""
    path = folder / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BackupError(f"{folder} is no backup: {path.name}: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise BackupError(f"{path} cannot be read: {where}: {fault['msg']}") from error


def faults(folder: Path, manifest: Manifest, *, keyring: Keyring | None) -> list[str]:
    """Everything that is not as the manifest says; without a key, its seal is not looked at."""
    found = []
    if keyring is not None and not manifest.is_sealed_by(keyring):
        found.append(f"{MANIFEST_FILE} was altered")
    for name, table in manifest.tables.items():
        fault = _table_fault(table_path(folder, name), table)
        if fault is not None:
            found.append(f"table {name}: {fault}")
    for digest in manifest.artifacts:
        try:
            if digest_of(folder / ARTIFACTS / digest) != digest:
                found.append(f"artifact {digest}: it was altered or cut short")
        except ArtifactError:
            found.append(f"artifact {digest}: it is missing")
    if manifest.includes_keys and not (folder / KEYS / KEY_PATHS[0]).is_file():
        found.append("the keys are missing")
    return found


def key_faults(folder: Path, manifest: Manifest) -> list[str]:
    """The keys that the backup's own database lists, and the backup has not.

    None where it was made without keys. Its tables are as the manifest says.
    """
    if not manifest.includes_keys:
        return []
    master, fields = (folder / KEYS / name for name in KEY_PATHS)
    try:
        here = FieldKeys(Keyring(read_key(master)).first_field_key, fields).ids
    except KeyringError as error:
        return [str(error)]
    return [
        f"key {key_id} is missing, which fields may be encrypted with"
        for key_id in _listed_keys(folder, manifest)
        if key_id not in here
    ]


def table_path(folder: Path, table: str) -> Path:
    """The file with a table's rows."""
    return folder / TABLES / f"{table}.jsonl.gz"


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest for people to read, too."""
    told = json.loads(manifest.model_dump_json())
    (folder / MANIFEST_FILE).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _listed_keys(folder: Path, manifest: Manifest) -> list[str]:
    """The keys of fields that were not retired when the backup was made."""
    name = EncryptionKey.__tablename__
    if name not in manifest.tables:
        return []
    columns = manifest.tables[name].columns
    with gzip.open(table_path(folder, name), "rb") as file:
        rows = [dict(zip(columns, json.loads(line), strict=True)) for line in file]
    return [row["id"] for row in rows if row["kind"] == "fields" and row["retired_at"] is None]


def _table_fault(path: Path, table: TableFile) -> str | None:
    try:
        if file_digest(path) != table.sha256:
            return "it was altered or cut short"
        with gzip.open(path, "rb") as file:
            num_lines = sum(
                chunk.count(b"\n") for chunk in iter(lambda: file.read(CHUNK_BYTES), b"")
            )
    except (OSError, EOFError, zlib.error) as error:
        return f"it cannot be read: {error}"
    return None if num_lines == table.rows else f"it has {num_lines} rows, not {table.rows}"
