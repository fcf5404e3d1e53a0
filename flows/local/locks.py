"""Locks of an installation, each held by one command at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.errors import LocalError
from registry.folders import make_private

STARTING, DEMO = "lock", "demo.lock"


@contextmanager
def lock(home: Path, name: str, *, who: str) -> Iterator[None]:
    """Hold a lock for the time of the block; it goes with the process that holds it.

    Raises `LocalError` where `who` holds it.
    """
    path = home / "run" / name
    make_private(path.parent)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(f"another {who} is at work here") from None
        yield
