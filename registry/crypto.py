"""Keys, pseudonyms and field encryption (AES-256-GCM, bound to its row and column)."""

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from registry.errors import KeyringError

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_FILE = "secret.key"


@dataclass(frozen=True)
class Keyring:
    """The master key; every purpose has a key of its own derived from it."""

    master: bytes = field(repr=False)

    def derive(self, purpose: str) -> bytes:
        """A 32-byte key for one purpose (HMAC-SHA256 of the purpose's name)."""
        return _derive(self.master, purpose)

    @property
    def key_id(self) -> str:
        """Names the master key without telling it."""
        return self.derive("key-id").hex()[:8]

    def pseudonym(self, external_id: str) -> str:
        """The same 32 hexadecimal digits for the same person, useless without the key."""
        return hmac.new(
            self.derive("pseudonym"),
            external_id.encode("utf-8", "surrogatepass"),
            hashlib.sha256,
        ).hexdigest()[:32]

    def encrypt(self, text: str, *, context: str) -> str:
        """Encrypt `text` for the one place that `context` names ("table.column:row")."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        data = text.encode("utf-8", "surrogatepass")
        sealed = AESGCM(self.derive("fields")).encrypt(nonce, data, context.encode())
        return f"{self.key_id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def decrypt(self, value: str, *, context: str) -> str:
        """Undo `encrypt`. Raises `KeyringError` for another key, another place or an edit."""
        key_id, _, payload = value.partition(".")
        if key_id != self.key_id:
            raise KeyringError(f"the value was encrypted with key {key_id}, not {self.key_id}")
        raw = base64.urlsafe_b64decode(payload)
        try:
            data = AESGCM(self.derive("fields")).decrypt(
                raw[:NONCE_BYTES], raw[NONCE_BYTES:], context.encode()
            )
        except InvalidTag as error:
            raise KeyringError(f"the encrypted value at {context} was altered or moved") from error
        return data.decode("utf-8", "surrogatepass")


@lru_cache(maxsize=32)  # one for each purpose; every encrypted field needs two of them
def _derive(master: bytes, purpose: str) -> bytes:
    return hmac.new(master, purpose.encode(), hashlib.sha256).digest()


def load_keyring(home: Path) -> Keyring:
    """The key in `home`, made on first use, readable by its owner alone."""
    path = home / KEY_FILE
    home.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _create(path)
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise KeyringError(f"cannot read the key in {path}: {error}") from error
    if len(key) != KEY_BYTES:
        raise KeyringError(f"{path} must hold {KEY_BYTES} bytes in hexadecimal")
    return Keyring(key)


def _create(path: Path) -> None:
    """Write a new key; of several processes that try at once, one wins and all use its key."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
