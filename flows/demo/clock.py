"""A clock that the demo moves ahead, so that two days of experiment take seconds.

It is real time plus an offset kept in a file, so that the routers, which are other
processes, see the same time as the flows.
"""

from datetime import datetime, timedelta
from pathlib import Path

from registry.clock import utc_now


class SimulatedClock:
    """Callable like any clock; picklable, since Ray sends it to the routers."""

    def __init__(self, path: Path) -> None:
        """Start at the present moment. `path` holds the offset, in seconds."""
        self._path = path
        if not path.exists():
            self._write(0.0)

    def __call__(self) -> datetime:
        return utc_now() + timedelta(seconds=float(self._path.read_text(encoding="ascii")))

    def advance(self, hours: float) -> None:
        """Let `hours` pass."""
        self._write(float(self._path.read_text(encoding="ascii")) + hours * 3600)

    def _write(self, seconds: float) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(f"{seconds}", encoding="ascii")
        temporary.replace(self._path)
