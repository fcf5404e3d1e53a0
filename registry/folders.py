"""Folders that appear whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.errors import ConflictError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` to put things into; it gets its name when the block ends.

    `folder` must be new or empty. If the block raises, nothing is left. What it holds is on the
    disk before it has its name. Raises `ConflictError` where there is something already.
    """
    refuse_content(folder)
    absolute = folder.absolute()
    partial = absolute.with_name(f".{absolute.name}.{secrets.token_hex(4)}.partial")
    absolute.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir(mode=0o700)
    try:
        yield partial
        sync_tree(partial)
        os.replace(partial, absolute)
        sync(absolute.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_content(folder: Path) -> None:
    """Raise `ConflictError` where `folder` is neither new nor empty, or cannot be made."""
    refuse_unwritable(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError(f"{folder} is there already: name a folder that is new or empty")


def refuse_unwritable(path: Path) -> None:
    """Raise `ConflictError` where nothing can be put at `path`, or where it is to be made."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConflictError(
            f"cannot write {path}: {above} is no folder that this user may write to"
        )


def make_private(folder: Path) -> None:
    """Make `folder`, and what is missing above it, for its owner alone; what is there stays so."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)  # raises where it is a file


def sync_tree(folder: Path) -> None:
    """Return when the folder and all that it holds is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Return when a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
