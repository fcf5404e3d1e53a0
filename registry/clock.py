"""Time and ids, in the one form that everything injects."""

import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present moment, aware and in UTC."""

NewId = Callable[[], str]
"""Returns an id that nobody else has."""


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def new_id() -> str:
    """A version 7 UUID (RFC 9562): random, and ordered by time so that indexes grow at one end."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=value))
