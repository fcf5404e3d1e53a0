"""Whose silence means death: nobody's, while nobody can report."""

from datetime import datetime, timedelta

LIVE_FOR_S = 6.0
"""A process whose last report is older is taken for dead."""


class Liveness:
    """Follows whether reports can be written, by what became of this process's own.

    While they cannot, and until all had time to report again, others are held against the
    last moment when they could.
    """

    def __init__(self) -> None:
        self._kept_at: datetime | None = None
        self._failing = False
        self._resumed_at: datetime | None = None
        self._reference: datetime | None = None
        """Set during an outage, and a while after."""

    @property
    def is_known(self) -> bool:
        """Whether a report of this process has ever been kept."""
        return self._kept_at is not None

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to report failed."""
        return self._failing

    def report_kept(self, now: datetime) -> None:
        """This process could report."""
        if self._failing:
            self._failing, self._resumed_at = False, now
        elif self._resumed_at is None or now - self._resumed_at > timedelta(seconds=LIVE_FOR_S):
            self._reference = self._resumed_at = None
        self._kept_at = now

    def report_failed(self) -> None:
        """This process could not report."""
        if not self._failing and self._reference is None:
            self._reference = self._kept_at
        self._failing = True

    def dead_before(self, now: datetime, *, newest: datetime | None) -> datetime:
        """Who has not reported since this moment is dead; `newest` is anybody's last report."""
        reference = self._reference
        if reference is None:
            # Never written while others could once: this process started in an outage.
            reference = newest if self._failing and newest is not None else now
        return min(reference, now) - timedelta(seconds=LIVE_FOR_S)
