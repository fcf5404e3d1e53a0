"""Keys, pseudonyms and field encryption (AES-256-GCM, bound to its row and column).

The master key never changes: pseudonyms, the audit log, hashes of API keys and signatures of
reports are made with keys derived from it. Fields have keys of their own, which rotate.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from registry.errors import KeyringError
from registry.field_keys import FOLDER, KEY_BYTES, FieldKey, FieldKeys, create_private, read_key
from registry.folders import make_private

NONCE_BYTES = 12
KEY_FILE = "secret.key"


@dataclass(frozen=True)
class Keyring:
    """The master key, of which every purpose has a key derived, and the keys of fields."""

    master: bytes = field(repr=False)
    fields: FieldKeys = field(default=None, repr=False, compare=False)  # type: ignore[assignment]
    """Unset, the one that comes from the master key."""
    seals_texts: bool = False
    """Whether people's texts are encrypted too (setting privacy.encrypt_texts)."""

    def __post_init__(self) -> None:
        if self.fields is None:
            object.__setattr__(self, "fields", FieldKeys(self.first_field_key))

    def derive(self, purpose: str) -> bytes:
        """A 32-byte key for one purpose (HMAC-SHA256 of the purpose's name)."""
        return _derive(self.master, purpose)

    @property
    def key_id(self) -> str:
        """Names the master key without telling it."""
        return self.derive("key-id").hex()[:8]

    @property
    def first_field_key(self) -> FieldKey:
        """The key of fields before the first rotation."""
        return FieldKey(self.key_id, self.derive("fields"))

    def pseudonym(self, external_id: str) -> str:
        """The same 32 hexadecimal digits for the same person, useless without the key."""
        return self.digest("pseudonym", external_id)[:32]

    def digest(self, purpose: str, text: str) -> str:
        """HMAC-SHA256 of a text with the key of a purpose, in hexadecimal."""
        data = text.encode("utf-8", "surrogatepass")
        return hmac.new(self.derive(purpose), data, hashlib.sha256).hexdigest()

    def encrypt(self, text: str, *, context: str) -> str:
        """Encrypt `text` for the one place that `context` names ("table.column:row")."""
        key = self.fields.current
        nonce = secrets.token_bytes(NONCE_BYTES)
        data = text.encode("utf-8", "surrogatepass")
        sealed = AESGCM(key.secret).encrypt(nonce, data, context.encode())
        return f"{key.id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def decrypt(self, value: str, *, context: str) -> str:
        """Undo `encrypt`. Raises `KeyringError` for another key, another place or an edit."""
        key_id, _, payload = value.partition(".")
        key = self.fields.get(key_id)
        if key is None:
            known = ", ".join(self.fields.ids)
            raise KeyringError(f"the value was encrypted with key {key_id[:8]}, not {known}")
        try:
            raw = base64.urlsafe_b64decode(payload)
            data = AESGCM(key.secret).decrypt(
                raw[:NONCE_BYTES], raw[NONCE_BYTES:], context.encode()
            )
        except (InvalidTag, ValueError) as error:
            raise KeyringError(f"the encrypted value at {context} was altered or moved") from error
        return data.decode("utf-8", "surrogatepass")

    def with_texts(self, sealed: bool) -> "Keyring":
        """The same keys, with texts encrypted from now on, or not."""
        return replace(self, seals_texts=sealed)


@lru_cache(maxsize=32)  # one for each purpose; every encrypted field needs two of them
def _derive(master: bytes, purpose: str) -> bytes:
    return hmac.new(master, purpose.encode(), hashlib.sha256).digest()


def load_keyring(home: Path, *, seals_texts: bool = False) -> Keyring:
    """The keys in `home`; the master key is made on first use, readable by its owner alone."""
    path = home / KEY_FILE
    make_private(home)
    if not path.exists():
        # Of several processes that try at once, one wins and all use its key.
        create_private(path, secrets.token_hex(KEY_BYTES))
    keyring = Keyring(read_key(path), seals_texts=seals_texts)
    return replace(keyring, fields=FieldKeys(keyring.first_field_key, home / FOLDER))
