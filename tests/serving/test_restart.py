"""After kill -9 of everything, on the same home and ports, the next start works."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlmodel import select

from registry.db import Database
from registry.models import UserInteraction
from registry.settings import Settings
from serving.haproxy import stop_orphans
from serving.runtime_env import environment
from tests.serving.test_ray import ROOT, served_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@contextmanager
def system(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A running system on these settings."""
    ray_folder = tempfile.mkdtemp(prefix="kr", dir="/tmp")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.serving.serve_process",
            settings.home / "settings.json",
            ray_folder,
        ],
        env={**os.environ, **environment(settings), "PYTHONPATH": str(ROOT)},
        cwd=settings.home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.wait(120)
    process.stdout.close()
    shutil.rmtree(ray_folder, ignore_errors=True)


def processes_of(settings: Settings) -> list[int]:
    """Everything that the system has started, by the token that only its processes know."""
    token = environment(settings)["RAY_AUTH_TOKEN_PATH"].encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) != os.getpid() and token in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def is_haproxy(process: int) -> bool:
    try:
        return b"haproxy" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False


def ask(settings: Settings, text: str) -> httpx.Response:
    return httpx.post(
        f"http://127.0.0.1:{settings.serving.port}/api/generate",
        json={"text": text, "max_tokens": 2},
        headers={"x-request-id": "abc-1"},
        timeout=90,
    )


def kept(settings: Settings) -> list[str]:
    database = Database(settings.resolved_database_url)
    with database.read() as session:
        found = list(session.exec(select(UserInteraction.input_text)).all())
    database.close()
    return sorted(found)


def test_killed_altogether_it_starts_again_and_has_lost_nothing(
    tmp_path: Path, tiny_base: Path
) -> None:
    settings = served_settings(tmp_path, tiny_base)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    with system(settings) as process:
        answer = ask(settings, "before")
        assert answer.status_code == 200
        assert answer.headers.get_list("x-request-id") == ["abc-1"]
        lock = sqlite3.connect(tmp_path / "kalimtak.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        assert ask(settings, "during an outage").status_code == 200
        assert kept(settings) == ["before"]
        victims = processes_of(settings)
        assert len(victims) > 5
        assert any(is_haproxy(victim) for victim in victims)
        for victim in victims:
            # HAProxy outlives its cluster in real life too, and keeps the ports.
            if not is_haproxy(victim):
                os.kill(victim, signal.SIGKILL)
        process.wait(30)
        lock.execute("ROLLBACK")
        lock.close()
    stop_orphans(settings)
    with system(settings):
        assert ask(settings, "after").status_code == 200
        until = time.monotonic() + 60
        while len(kept(settings)) < 3:
            assert time.monotonic() < until
            time.sleep(0.2)
    assert kept(settings) == ["after", "before", "during an outage"]
    assert stop_orphans(settings) == []
