"""What the digests of the audit log cover, in a form that every database gives back alike."""

import hashlib
import hmac
import json
from decimal import Decimal
from typing import Any

from registry.models import AuditEntry

GENESIS = "0" * 64
"""What the first entry follows."""
KEY_ID_DIGITS = 8


def key_id_of(key: bytes) -> str:
    """Names a key without telling it."""
    return _hmac(key, "audit-key-id")[:KEY_ID_DIGITS]


def digest_of(entry: AuditEntry, key: bytes) -> str:
    """HMAC-SHA256 of everything an entry says, and of the digest before it."""
    content = [
        entry.sequence,
        entry.at.isoformat(),
        entry.actor,
        entry.action,
        entry.subject,
        entry.details,
        entry.previous_digest,
    ]
    if entry.key_id is None:  # from before keys had names
        return _hmac(key, json.dumps(content, sort_keys=True, ensure_ascii=False))
    content[5] = canonical(entry.details)
    return _hmac(
        key,
        json.dumps([*content, entry.key_id], sort_keys=True, ensure_ascii=False, allow_nan=False),
    )


def seal_of(sequence: int, digest: str, key: bytes) -> str:
    """HMAC-SHA256 that vouches for the chain's end being where it is."""
    return _hmac(key, json.dumps(["audit-head", sequence, digest]))


def canonical(value: Any) -> Any:
    """JSON with one form for each number: PostgreSQL gives 1e16 back as an integer."""
    if isinstance(value, dict):
        return {str(name): canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(Decimal(repr(value)))  # its shortest digits, as PostgreSQL keeps them
    return value


def _hmac(key: bytes, content: str) -> str:
    data = content.encode("utf-8", "surrogatepass")
    return hmac.new(key, data, hashlib.sha256).hexdigest()
