"""Result files of benchmarks: one form for all, so that the documents can be rendered."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
_PACKAGES = ("torch", "transformers", "peft", "ray", "prefect", "sqlalchemy", "polars", "numpy")


@dataclass(frozen=True)
class Figure:
    """One measured number, beside its peer's and its goal where there are such."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    """What it is compared with, measured in the same run."""
    peer_value: float | None = None
    goal: str | None = None
    """The goal in words, such as "≥ 0.95"."""
    holds: bool | None = None

    @property
    def ratio(self) -> float | None:
        """`value` over the peer's."""
        return self.value / self.peer_value if self.peer_value else None


def at_least(name: str, value: float, unit: str, goal: float) -> Figure:
    """A figure whose goal is a floor."""
    return Figure(name, value, unit, goal=f"≥ {goal:g}", holds=value >= goal)


def within(name: str, value: float, unit: str, low: float, high: float) -> Figure:
    """A figure whose goal is a range."""
    return Figure(name, value, unit, goal=f"{low:g} to {high:g}", holds=low <= value <= high)


def hardware() -> str:
    """A short name for file names: "cpu2", or the GPU's."""
    try:
        import torch
    except ImportError:
        return f"cpu{os.cpu_count()}"
    if torch.cuda.is_available():
        return "-".join(torch.cuda.get_device_name().lower().split())
    return f"cpu{os.cpu_count()}"


def write_results(
    theme: str,
    figures: Iterable[Figure],
    *,
    sizes: Mapping[str, Any],
    out: Path | None = None,
    now: datetime | None = None,
) -> Path:
    """Write `benchmarks/results/<theme>_<hardware>_<date>.json`, or `out`; the path written."""
    moment = now or datetime.now(UTC)
    path = out or RESULTS / f"{theme}_{hardware()}_{moment:%Y-%m-%d}.json"
    content = {
        "command": _command(theme, sys.argv[1:]),
        "date": moment.isoformat(timespec="seconds"),
        "machine": {
            "hardware": hardware(),
            "cpus": os.cpu_count(),
            "processor": _processor(),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "sizes": dict(sizes),
        "figures": [{**asdict(figure), "ratio": figure.ratio} for figure in figures],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(path)
    return path


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The processor's model, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _command(theme: str, arguments: Sequence[str]) -> str:
    """What was typed, without the places of this machine."""
    shown = (Path(word).name if Path(word).is_absolute() else word for word in arguments)
    return " ".join(["python -m", f"benchmarks.bench_{theme}", *shown])
