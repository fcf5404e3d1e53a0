"""What a recorder keeps, as lines of text that can lie on a disk: sealed and checksummed.

A line is `<crc32> <encrypted JSON>\\n`. The checksum tells a torn line from one that another
key sealed; the encryption keeps people's ids, addresses and texts off the disk.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from registry.crypto import Keyring
from registry.errors import KeyringError
from registry.interactions import Feedback, Interaction
from serving.errors import RecordError

CONTEXT = "spool"

Item = tuple[Interaction, ...] | Feedback
"""What is written together or not at all."""


def seal(item: Item, keyring: Keyring) -> bytes:
    """The item as a line."""
    if isinstance(item, Feedback):
        content: dict[str, Any] = {"feedback": _values(item)}
    else:
        content = {"interactions": [_values(row) for row in item]}
    text = json.dumps(content, separators=(",", ":"))
    payload = keyring.encrypt(text, context=CONTEXT).encode()
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def unseal(line: bytes, keyring: Keyring) -> Item:
    """The item in a line. Raises `RecordError` where it cannot be read."""
    checksum, _, payload = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(payload):
        raise RecordError("its checksum is wrong")
    try:
        content = json.loads(keyring.decrypt(payload.decode(), context=CONTEXT))
        if "feedback" in content:
            return Feedback(**_moments(content["feedback"]))
        return tuple(Interaction(**_moments(row)) for row in content["interactions"])
    except KeyringError as error:
        raise RecordError(str(error)) from error
    except (ValueError, TypeError, KeyError) as error:
        raise RecordError(f"another version of this program wrote it: {error}") from error


def _values(item: Interaction | Feedback) -> dict[str, Any]:
    values = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if value is not None:
            values[field.name] = value.isoformat() if isinstance(value, datetime) else value
    return values


def _moments(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value)
        if name in ("created_at", "asked_at", "given_at")
        else value
        for name, value in values.items()
    }
