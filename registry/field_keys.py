"""The keys that fields are encrypted with: the first comes from the master key, others are files.

    <home>/keys/0001-<id>.key    32 bytes in hexadecimal; the highest number is the current key

Running processes notice a new file at their next field: the folder's time of change tells.
"""

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from registry.errors import KeyringError

KEY_BYTES = 32
FOLDER = "keys"
_FILE = re.compile(r"(\d{4,})-([0-9a-f]{8})\.key")


@dataclass(frozen=True)
class FieldKey:
    """One key. `id` names it without telling it, and stands in every value that it seals."""

    id: str
    secret: bytes = field(repr=False)


class FieldKeys:
    """All keys that fields may be encrypted with; new values get the current one."""

    def __init__(self, first: FieldKey, folder: Path | None = None) -> None:
        """`folder`: where further keys lie; it need not exist. Raises `KeyringError`."""
        self._first = first
        self._folder = folder
        self._changed_at: int | None = None
        self._keys: list[FieldKey] = [first]
        self._refresh()

    @property
    def current(self) -> FieldKey:
        """The key of new values."""
        self._refresh()
        return self._keys[-1]

    @property
    def ids(self) -> tuple[str, ...]:
        """All keys, oldest first."""
        self._refresh()
        return tuple(key.id for key in self._keys)

    def get(self, key_id: str) -> FieldKey | None:
        """The key of that id, if it is here."""
        self._refresh()
        return next((key for key in self._keys if key.id == key_id), None)

    def add(self) -> FieldKey:
        """Make a new key and make it current; on the disk when this returns."""
        if self._folder is None:
            raise KeyringError("this keyring has no folder to keep a new key in")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        secret = secrets.token_bytes(KEY_BYTES)
        key = FieldKey(_id_of(secret), secret)
        number = max(self._files(), default=0) + 1
        create_private(self._folder / f"{number:04}-{key.id}.key", secret.hex())
        self._changed_at = None
        self._refresh()
        return self._keys[-1]

    def adopt(self, folder: Path, key_id: str) -> bool:
        """Take a key over from another such folder, under its number; whether it is there.

        Raises `KeyringError` where its file is damaged, or another key has the number here.
        """
        if self._folder is None:
            raise KeyringError("this keyring has no folder to keep a key in")
        for path in folder.glob(f"*-{key_id}.key"):
            secret, number = _read(path).secret, path.name.partition("-")[0]
            if int(number) in self._files():
                raise KeyringError(
                    f"key {key_id} has the number {number}, which another key has in "
                    f"{self._folder}: put {path} there under the number of none"
                )
            self._folder.mkdir(mode=0o700, exist_ok=True)
            create_private(self._folder / path.name, secret.hex())
            self._changed_at = None
            return True
        return False

    def remove(self, key_id: str) -> bool:
        """Delete a key's file; whether there was one. The current and the first key stay."""
        if key_id in (self.current.id, self._first.id):
            return False
        found = [path for path in self._files().values() if path.name.endswith(f"-{key_id}.key")]
        for path in found:
            path.unlink()
        self._changed_at = None
        return bool(found)

    def _files(self) -> dict[int, Path]:
        if self._folder is None or not self._folder.is_dir():
            return {}
        named = {path: _FILE.fullmatch(path.name) for path in self._folder.iterdir()}
        return {int(match[1]): path for path, match in named.items() if match is not None}

    def _refresh(self) -> None:
        """Read the folder again where it has changed."""
        if self._folder is None:
            return
        try:
            changed_at = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed_at == self._changed_at:
            return
        found = self._files()
        self._keys = [self._first, *(_read(found[number]) for number in sorted(found))]
        self._changed_at = changed_at


def create_private(path: Path, text: str) -> bool:
    """Write a file for its owner alone, whole or not at all; False where it exists already."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def read_key(path: Path) -> bytes:
    """The key in a file. Raises `KeyringError` where there is none, or half of one."""
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise KeyringError(f"cannot read the key in {path}: {error}") from error
    if len(secret) != KEY_BYTES:
        raise KeyringError(f"{path} must hold {KEY_BYTES} bytes in hexadecimal")
    return secret


def _read(path: Path) -> FieldKey:
    secret = read_key(path)
    named = path.stem.partition("-")[2]
    if _id_of(secret) != named:
        raise KeyringError(f"{path} does not hold key {named}: put the right file back")
    return FieldKey(named, secret)


def _id_of(secret: bytes) -> str:
    return hmac.new(secret, b"key-id", hashlib.sha256).hexdigest()[:8]
