"""What `up` and `down` do before and without anything heavy being started."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from flows.context import Context
from flows.errors import LocalError
from flows.local import launch, processes, state
from flows.local.processes import MARKER, Started
from flows.local.state import LocalState
from registry import audit
from registry.settings import RaySettings, Settings
from registry.settings_access import AuthSettings


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
            settings=state.marks(settings),
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
    assert launch.up(settings, said.append, actor="cli") == {"serving": "http://127.0.0.1:8000"}
    assert said == ["already up"]
    assert processes.is_alive(running)


def test_what_runs_with_other_settings_is_not_taken_for_what_was_asked(
    settings: Settings, running: Started, said: list[str]
) -> None:
    remember(settings, running)
    secret = "0123456789abcdefghijklmnopqrstuv"
    auth = AuthSettings(enabled=True, secrets={"new": SecretStr(secret)})
    other = settings.model_copy(update={"auth": auth, "artifacts_url": "s3://elsewhere"})
    with pytest.raises(LocalError) as told:
        launch.up(other, said.append, actor="cli")
    assert str(told.value) == (
        "it runs with other settings (artifacts_url, auth.enabled, auth.secrets): "
        "'kalimtak down' first"
    )
    assert processes.is_alive(running)
    remember(other, running)
    assert secret not in (settings.home / state.FILE).read_text()
    with pytest.raises(LocalError, match="auth"):
        launch.up(settings, said.append, actor="cli")


def test_down_without_up_stops_nothing(settings: Settings, said: list[str]) -> None:
    assert launch.down(settings, said.append) is False


def test_down_stops_what_was_started_and_forgets_it(
    settings: Settings, running: Started, said: list[str]
) -> None:
    remember(settings, running)
    assert launch.down(settings, said.append) is True
    assert not processes.is_alive(running)
    assert state.load(settings.home) is None


@pytest.mark.parametrize("was_ours", [True, False])
def test_serving_is_taken_off_the_ray_that_it_was_put_on_whatever_settings_say_by_now(
    settings: Settings,
    running: Started,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    was_ours: bool,
) -> None:
    address = "127.0.0.1:16379" if was_ours else "cluster:6379"
    ray = Started(name="ray", pid=running.pid, started=running.started, log="")
    processes_then = (ray,) if was_ours else (running,)
    found = LocalState(
        marker="test-local", processes=processes_then, addresses={"ray": address}, complete=True
    )
    state.save(settings.home, found)
    told = settings.home / "told"
    python = settings.home / "fake_python"
    python.write_text(f'#!/bin/sh\necho "$* $RAY_ADDRESS ${{RAY_AUTH_MODE:-none}}" > {told}\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    other = settings.model_copy(update={"ray": RaySettings(address="production:6379")})
    assert launch.down(other, said.append) is True
    verb, auth = ("stop", "token") if was_ours else ("leave", "none")
    assert told.read_text() == f"-m flows.local.serve {verb} {address} {address} {auth}\n"


def test_after_a_reboot_nothing_counts_as_up(settings: Settings, running: Started) -> None:
    remember(settings, Started(name="ray", pid=running.pid, started="other-boot:1", log=""))
    assert not launch.is_up(settings)


def test_a_state_file_of_another_version_is_ignored(settings: Settings) -> None:
    remember(settings)
    (settings.home / state.FILE).write_text('{"marker": "x"}')
    assert state.load(settings.home) is None


@pytest.fixture
def taken(settings: Settings) -> Iterator[Settings]:
    """Settings of an endpoint whose port is in use."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        serving = settings.serving.model_copy(update={"port": other.getsockname()[1]})
        yield settings.model_copy(update={"serving": serving})


def test_settings_that_never_came_into_force_are_not_told(
    taken: Settings, context: Context, said: list[str]
) -> None:
    with pytest.raises(LocalError, match="is in use"):
        launch.up(taken, said.append, actor="cli")
    with context.database.read() as session:
        assert audit.entries(session, limit=1) == []


def test_what_is_left_when_one_part_has_died_is_told_and_not_restored_into(
    settings: Settings, running: Started
) -> None:
    remember(settings, running, Started(name="ray", pid=running.pid, started="x:1", log=""))
    assert not launch.is_up(settings)
    assert launch.how_it_runs(settings).startswith("partly: ray has died")
    with pytest.raises(LocalError, match=r"prefect-worker.*'kalimtak down' first"):
        launch.at_rest(settings).__enter__()


def test_an_installation_that_is_being_started_is_not_at_rest(
    settings: Settings, running: Started
) -> None:
    with launch.at_rest(settings), pytest.raises(LocalError, match="at work here"):
        launch.at_rest(settings).__enter__()
    remember(settings, running, complete=False)
    assert launch.how_it_runs(settings).startswith("partly: kalimtak up is at work")
    assert not launch.is_up(settings)


def test_a_command_that_does_not_end_is_told_as_such(
    settings: Settings, running: Started, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "START_TIMEOUT_S", 0.1)
    with pytest.raises(LocalError, match=r"prefect-worker did not end within .* and was ended"):
        launch._Launch(settings, said.append)._finish(running)


def test_two_at_once_do_not_meet(settings: Settings, said: list[str]) -> None:
    with launch._lock(settings.home), pytest.raises(LocalError, match="at work here"):
        launch.down(settings, said.append)
