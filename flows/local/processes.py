"""Processes of this machine: started in sessions of their own, told apart, and stopped.

A pid alone does not name a process, since it is given again after a reboot or a crash:
with its time of start it does. Children are known by a marker in their environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARKER = "_KALIMTAK_INSTANCE"
"""Environment variable that all processes of one local installation inherit."""
PROC = Path("/proc")
POLL_S = 0.1

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Held while they may run: Python warns of children that are let go."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process that was started, with its time of start in the system's own words."""

    name: str
    pid: int
    started: str
    log: str


def start(
    name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path, folder: Path
) -> Started:
    """Start `command` in a session of its own, in `folder`, writing to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[process.pid] = process
    return Started(name=name, pid=process.pid, started=_start_time(process.pid) or "", log=str(log))


def wait(process: Started, *, timeout_s: float) -> int | None:
    """Wait for a child of this process to end: its exit code, None where it had to be killed."""
    child = _children.pop(process.pid)
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        child.wait()
        return None


def is_alive(process: Started) -> bool:
    """Whether that very process still runs."""
    return process.started != "" and _start_time(process.pid) == process.started


def stop(process: Started, *, timeout_s: float) -> None:
    """End the process and its group: politely first, by force after `timeout_s`."""
    if not is_alive(process):
        return
    os.kill(process.pid, signal.SIGTERM)
    if not _wait_until_gone([process], timeout_s=timeout_s):
        os.killpg(process.pid, signal.SIGKILL)
        _wait_until_gone([process], timeout_s=timeout_s)


def marked(marker: str) -> list[Started]:
    """The processes whose environment carries `marker`; needs Linux's /proc."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for folder in PROC.glob("[0-9]*"):
        pid = int(folder.name)
        try:
            carries = wanted in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile, or another user's
            continue
        started = _start_time(pid)
        if carries and started is not None and pid != os.getpid():
            found.append(Started(name=_command(folder), pid=pid, started=started, log=""))
    return found


def sweep(marker: str, *, timeout_s: float) -> list[Started]:
    """End every process that carries `marker`; returns those that there were."""
    found = marked(marker)
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [process for process in found if is_alive(process)]
        for process in alive:
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:  # it went by itself
                continue
        if _wait_until_gone(alive, timeout_s=timeout_s):
            break
    return found


def _wait_until_gone(processes: Iterable[Started], *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    for process in processes:
        while is_alive(process):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
    _let_go()
    return True


def _let_go() -> None:
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]


def _start_time(pid: int) -> str | None:
    """When a process started, None where there is none or it is a zombie."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _start_time_from_ps(pid) if not PROC.exists() else None
    # The command in brackets may hold anything; the fields after it are fixed.
    fields = text.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]
    return None if state == "Z" else f"{_boot_id()}:{ticks}"


def _start_time_from_ps(pid: int) -> str | None:
    result = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = result.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def _boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _command(folder: Path) -> str:
    try:
        return (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # gone meanwhile
        return "?"
