"""How the steps of a flow are carried out and shown: plainly here, as Prefect tasks elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from registry.models import RetrainRun

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Steps(Protocol):
    """Runs named steps and tells people how far a flow has come."""

    def run(self, name: str, step: Callable[[], T], *, retries: int = 0) -> T:
        """Carry out `step`. `retries` says how often it may safely be repeated when it fails."""
        ...

    def progress(self, percent: float, note: str) -> None:
        """Tell that a long step has come to `percent` (0-100)."""
        ...

    def table(self, key: str, markdown: str) -> None:
        """Keep a report; `key` names the series that it continues."""
        ...

    def image(self, key: str, data_uri: str, description: str) -> None:
        """Keep a plot; `key` names the series that it continues."""
        ...

    def abandoned(self, run: RetrainRun) -> None:
        """A training run was found dead: show it so wherever it still looks alive."""
        ...


StepsFor = Callable[[str], Steps]
"""The steps of a workload."""


class PlainSteps:
    """Calls each step once and logs what there is to tell."""

    def run(self, name: str, step: Callable[[], T], *, retries: int = 0) -> T:  # noqa: ARG002
        """Carry out `step` once."""
        logger.info("step %s", name)
        return step()

    def progress(self, percent: float, note: str) -> None:
        """Log it."""
        logger.info("%3.0f %% %s", percent, note)

    def table(self, key: str, markdown: str) -> None:
        """Log it."""
        logger.info("%s\n%s", key, markdown)

    def image(self, key: str, data_uri: str, description: str) -> None:  # noqa: ARG002
        """Nothing shows images here."""
        logger.info("%s: %s", key, description)

    def abandoned(self, run: RetrainRun) -> None:
        """Log it."""
        logger.warning("training run %s: %s", run.id, run.reason)
