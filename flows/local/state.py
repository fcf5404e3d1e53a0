"""What `kalimtak up` has started on this machine: kept in `home/run/state.json`."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from flows.local.processes import Started
from registry.folders import make_private
from registry.settings import Settings

FILE = Path("run") / "state.json"
RAY, SERVING, PREFECT = "ray", "serving", "prefect"


@dataclass(frozen=True, kw_only=True)
class LocalState:
    """One local installation that was started."""

    marker: str
    """In the environment of every process of it, and of their children."""
    processes: tuple[Started, ...] = ()
    addresses: dict[str, str] = field(default_factory=dict)
    """Of `RAY`, `SERVING` and `PREFECT`."""
    settings: dict[str, str] = field(default_factory=dict)
    """What it was started with: a mark of each setting, since some are secret."""
    complete: bool = False
    """Whether `up` came to its end."""


def load(home: Path) -> LocalState | None:
    """What was started, None where nothing was or where the file is cut short."""
    try:
        content = json.loads((home / FILE).read_text(encoding="utf-8"))
        return LocalState(
            marker=content["marker"],
            processes=tuple(Started(**process) for process in content["processes"]),
            addresses=content["addresses"],
            settings=content["settings"],
            complete=content["complete"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # Written whole or not at all, so this is another version's file: of no use.
        return None


def marks(settings: Settings) -> dict[str, str]:
    """A mark of each setting, the same wherever its value is."""
    parts = settings.model_dump(exclude={"home"})
    named = {
        f"{part}.{name}" if name else part: value
        for part, values in parts.items()
        for name, value in (values.items() if isinstance(values, dict) else [("", values)])
    }
    return {name: _mark(value) for name, value in named.items()}


def _mark(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def save(home: Path, state: LocalState) -> None:
    """Replace what is kept."""
    path = home / FILE
    make_private(path.parent)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def forget(home: Path) -> None:
    """Nothing is started any more."""
    (home / FILE).unlink(missing_ok=True)
