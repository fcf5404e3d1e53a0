"""What `kalimtak up` has started on this machine: kept in `home/run/state.json`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from flows.local.processes import Started
from registry.folders import make_private

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
            complete=content["complete"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # Written whole or not at all, so this is another version's file: of no use.
        return None


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
