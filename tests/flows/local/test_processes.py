"""Real processes, started and stopped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from flows.local import processes
from flows.local.processes import MARKER, Started

CHILD = "import time; time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(60)"
)

Start = Callable[[str], Started]


@pytest.fixture
def marker() -> str:
    return uuid4().hex


@pytest.fixture
def start(tmp_path: Path, marker: str) -> Iterator[Start]:
    def begin(code: str) -> Started:
        return processes.start(
            "test",
            [sys.executable, "-c", code],
            environment={**os.environ, MARKER: marker},
            log=tmp_path / "logs" / "test.log",
            folder=tmp_path,
        )

    yield begin
    processes.sweep(marker, timeout_s=5)


def test_a_process_lives_until_it_is_stopped(start: Start) -> None:
    process = start(CHILD)
    assert processes.is_alive(process)
    processes.stop(process, timeout_s=10)
    assert not processes.is_alive(process)


def test_one_that_does_not_listen_is_ended_by_force(start: Start, tmp_path: Path) -> None:
    process = start(STUBBORN)
    log = tmp_path / "logs" / "test.log"
    while "deaf" not in log.read_text():
        time.sleep(0.02)
    processes.stop(process, timeout_s=0.2)
    assert not processes.is_alive(process)


def test_another_process_with_the_same_pid_is_not_taken_for_it(start: Start) -> None:
    process = start(CHILD)
    before_the_reboot = replace(process, started="another-boot:123")
    assert not processes.is_alive(before_the_reboot)
    processes.stop(before_the_reboot, timeout_s=1)
    assert processes.is_alive(process)


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads environments in /proc")
def test_children_that_outlive_their_parent_are_swept_and_nobody_else(
    start: Start, marker: str
) -> None:
    parent = start(PARENT)
    deadline = time.monotonic() + 20
    while len(processes.marked(marker)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(parent.pid, 9)
    orphans = [process for process in processes.marked(marker) if process.pid != parent.pid]
    assert len(orphans) == 1
    processes.sweep(uuid4().hex, timeout_s=1)
    assert processes.is_alive(orphans[0])
    processes.sweep(marker, timeout_s=10)
    assert processes.marked(marker) == []


def test_the_end_of_a_command_tells_its_exit_code(start: Start) -> None:
    assert processes.wait(start("raise SystemExit(3)"), timeout_s=20) == 3
    assert processes.wait(start(CHILD), timeout_s=0.1) is None
