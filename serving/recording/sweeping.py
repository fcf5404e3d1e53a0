"""Takes records out of spools that no router owns, and out of the quarantine.

A spool whose router lives is left alone: what it holds is asked for again when it is written,
and nothing of an erased user is.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from registry.crypto import Keyring
from serving.errors import RecordError
from serving.recording.records import Item, seal, unseal
from serving.recording.spool import (
    LOCK,
    PARKED,
    QUARANTINE,
    SUFFIX,
    open_locked,
    replace_file,
    try_lock,
)

Keep = Callable[[Item], Item | None]
"""What is kept of an item: all of it, some of its rows, or nothing."""


@dataclass(frozen=True)
class Swept:
    """How many lines were changed or taken out, and how many spools belong to routers that live."""

    num_removed: int
    num_live: int


def sweep_spools(folder: Path, keyring: Keyring, keep: Keep) -> Swept:
    """Keep of each record in the spools of dead routers what `keep` says."""
    removed = live = 0
    for path in sorted(folder.glob(f"*/{LOCK}")):
        lock = try_lock(path)
        if lock is None:
            live += path.exists()
            continue
        try:
            files = [*path.parent.glob(f"*{SUFFIX}"), *path.parent.glob(PARKED)]
            removed += sum(_sweep_file(file, keyring, keep) for file in files)
        finally:
            os.close(lock)
    return Swept(removed, live)


def sweep_quarantine(
    folder: Path, keyring: Keyring, keep: Keep, *, since: datetime | None = None
) -> int:
    """Keep of each record what `keep` says; nothing that is unreadable or came before `since`."""
    path = folder / QUARANTINE
    if not path.exists():
        return 0
    file = open_locked(path)
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [_kept_entry(line, keyring, keep, since) for line in lines]
        changed = sum(new != old for new, old in zip(kept, lines, strict=True))
        if changed:
            replace_file(path, filter(None, kept))
    finally:
        os.close(file)
    return changed


def keys_in_files(folder: Path) -> frozenset[str]:
    """The keys that spooled and quarantined records were sealed with.

    A line that is torn or altered needs none: nobody can read it with any.
    """
    found = set()
    for path in [*folder.glob(f"*/*{SUFFIX}"), *folder.glob(f"*/{PARKED}")]:
        found |= {_key_of(line) for line in path.read_bytes().splitlines()}
    if (folder / QUARANTINE).exists():
        for line in (folder / QUARANTINE).read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                found.add(_key_of(str(json.loads(line)["record"]).encode()))
    return frozenset(found)


def _sweep_file(path: Path, keyring: Keyring, keep: Keep) -> int:
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    kept = [_kept(line, keyring, keep) for line in lines]
    changed = sum(new != old for new, old in zip(kept, lines, strict=True))
    if changed:
        replace_file(path, filter(None, kept))
    return changed


def _kept(line: bytes, keyring: Keyring, keep: Keep) -> bytes | None:
    """What cannot be read stays: whoever adopts the spool quarantines it."""
    try:
        item = unseal(line, keyring)
    except RecordError:
        return line
    left = keep(item)
    return line if left is item else None if left is None else seal(left, keyring)


def _kept_entry(line: bytes, keyring: Keyring, keep: Keep, since: datetime | None) -> bytes | None:
    """What cannot be read goes: nobody can tell whose it is."""
    try:
        entry = json.loads(line)
        if since is not None and datetime.fromisoformat(entry["at"]) < since:
            return None
        item = unseal(str(entry["record"]).encode(), keyring)
    except (ValueError, KeyError, TypeError, RecordError):
        return None
    left = keep(item)
    if left is item:
        return line
    if left is None:
        return None
    record = seal(left, keyring).decode("ascii").rstrip("\n")
    return json.dumps(entry | {"record": record}).encode() + b"\n"


def _key_of(line: bytes) -> str:
    return line.partition(b" ")[2].partition(b".")[0].decode("ascii", "replace")
