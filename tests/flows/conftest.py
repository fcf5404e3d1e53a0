"""An installation in a temporary folder, with a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.context import Context, open_context
from registry.settings import Settings, load_settings

NOW = datetime(2026, 1, 14, 12, tzinfo=UTC)


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def move(self, **duration: float) -> datetime:
        """Let time pass, and return the new time."""
        self.now += timedelta(**duration)
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def settings(tmp_path: Path, registry_url: str | None) -> Settings:
    found = load_settings({"KALIMTAK_TRAINING__MIN_SAMPLES": "20"}, directory=tmp_path)
    return found.model_copy(update={"database_url": registry_url})


@pytest.fixture
def context(settings: Settings, clock: FakeClock) -> Iterator[Context]:
    found = open_context(settings, clock=clock)
    yield found
    found.database.close()


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """A Prefect server for the whole session: it takes half a minute to start."""
    with prefect_test_harness(server_startup_timeout=120):
        yield
