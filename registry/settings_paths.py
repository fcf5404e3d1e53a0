"""Paths among the settings, all of them from one folder.

What `kalimtak up` starts works in another folder than whoever has typed it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.base_model import EMBEDDED

NO_FILE = (":memory:", "file:")
"""What SQLite takes for a database in memory, or for a URL of its own."""


def make_absolute(values: dict[str, Any], directory: Path) -> None:
    """Take every relative path among the settings' values from `directory`."""
    for key, found in _READ.items():
        *parts, name = key.split(".")
        part: Any = values
        for inner in parts:
            part = part.get(inner) if isinstance(part, dict) else None
        if not isinstance(part, dict) or name not in part:
            continue
        value = part.get(name)
        if isinstance(value, list):
            part[name] = [_read(item, found, directory) for item in value]
        else:
            part[name] = _read(value, found, directory)


def expand(path: str, directory: Path) -> str:
    """`path` from `directory`, or from the user's own folder where it begins with ~."""
    return str((directory / os.path.expanduser(path)).absolute())


def _read(value: Any, found: Callable[[str, Path], str], directory: Path) -> Any:
    """What is no text, or none at all, is judged by whoever checks the settings."""
    return found(value, directory) if isinstance(value, str) and value else value


def _sqlite(url: str, directory: Path) -> str:
    kind, separator, path = url.partition(":///")
    if not kind.startswith("sqlite") or not path or path.startswith(NO_FILE):
        return url
    return f"{kind}{separator}{expand(path, directory)}"


def _place(place: str, directory: Path) -> str:
    """A folder or file, with or without file://, or any other URL as it is."""
    kind, separator, path = place.rpartition("://")
    return place if kind not in ("", "file") else f"{kind}{separator}{expand(path, directory)}"


def _recipe(name: str, directory: Path) -> str:
    return expand(name, directory) if name.endswith(".toml") else name


def _base_model(name: str, directory: Path) -> str:
    path = expand(name, directory)
    return path if name != EMBEDDED and os.path.isdir(path) else name


_READ: dict[str, Callable[[str, Path], str]] = {
    "database_url": _sqlite,
    "artifacts_url": _place,
    "audit.anchor": _place,
    "auth.jwks_file": expand,
    "training.base_model": _base_model,
    "training.recipe": _recipe,
    "training.suites": expand,
    "curation.rehearsal_file": expand,
    "curation.moderation.words_file": expand,
}
"""The settings that are paths, or may be, with how each is read."""
