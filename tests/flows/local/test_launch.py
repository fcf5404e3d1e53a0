"""What `up` and `down` do before and without anything heavy being started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.errors import LocalError
from flows.local import launch, processes, state
from flows.local.processes import MARKER, Started
from flows.local.state import LocalState
from registry.settings import Settings


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Started]:
    """A process that stands for one that `up` has started."""
    process = processes.start(
        "prefect-worker",
        [sys.executable, "-c", "import time; time.sleep(60)"],
        environment={**os.environ, MARKER: "test-local"},
        log=tmp_path / "log",
        folder=tmp_path,
    )
    yield process
    processes.stop(process, timeout_s=5)


def remember(settings: Settings, *found: Started, complete: bool = True) -> None:
    state.save(
        settings.home,
        LocalState(
            marker="test-local",
            processes=found,
            addresses={"serving": "http://127.0.0.1:8000"},
            complete=complete,
        ),
    )


def test_what_was_started_is_read_back(settings: Settings, running: Started) -> None:
    remember(settings, running)
    found = state.load(settings.home)
    assert found is not None
    assert found.processes == (running,)
    assert launch.is_up(settings)


def test_up_twice_changes_nothing(settings: Settings, running: Started, said: list[str]) -> None:
    remember(settings, running)
    assert launch.up(settings, said.append) == {"serving": "http://127.0.0.1:8000"}
    assert said == ["already up"]
    assert processes.is_alive(running)


def test_down_without_up_stops_nothing(settings: Settings, said: list[str]) -> None:
    assert launch.down(settings, said.append) is False


def test_down_stops_what_was_started_and_forgets_it(
    settings: Settings, running: Started, said: list[str]
) -> None:
    remember(settings, running)
    assert launch.down(settings, said.append) is True
    assert not processes.is_alive(running)
    assert state.load(settings.home) is None


def test_after_a_reboot_nothing_counts_as_up(settings: Settings, running: Started) -> None:
    remember(settings, Started(name="ray", pid=running.pid, started="other-boot:1", log=""))
    assert not launch.is_up(settings)


def test_a_state_file_of_another_version_is_ignored(settings: Settings) -> None:
    remember(settings)
    (settings.home / state.FILE).write_text('{"marker": "x"}')
    assert state.load(settings.home) is None


def test_two_at_once_do_not_meet(settings: Settings, said: list[str]) -> None:
    with launch._lock(settings.home), pytest.raises(LocalError, match="at work here"):
        launch.down(settings, said.append)
