"""The local installation for real: up, a training through Prefect, down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows.local import processes, state
from tests.support.network import free_port
from tests.support.tiny_model import make_tiny_model

PROJECT = Path(__file__).parents[3]
PORTS = (
    "SERVING__PORT",
    "PREFECT__PORT",
    "RAY__PORT",
    "RAY__DASHBOARD_PORT",
    "RAY__CLIENT_PORT",
    "RAY__HAPROXY_METRICS_PORT",
)
TIMEOUT_S = 600


class Installation:
    """The command line of one installation in a folder of its own."""

    def __init__(self, home: Path, base: Path) -> None:
        self.home = home
        ports = {f"KALIMTAK_{name}": str(free_port()) for name in PORTS}
        self.endpoint = f"http://127.0.0.1:{ports['KALIMTAK_SERVING__PORT']}"
        self.environment = {
            **os.environ,
            **ports,
            # Serve takes a thousand ports that begin 4,000 above this one.
            "KALIMTAK_RAY__HAPROXY_STATS_PORT": str(free_port() - 10_000),
            "KALIMTAK_HOME": str(home),
            "KALIMTAK_TRAINING__BASE_MODEL": str(base),
            "KALIMTAK_SERVING__NUM_ROUTERS": "1",
            "KALIMTAK_SERVING__MAX_NEW_TOKENS": "8",
            "PREFECT_API_URL": f"http://127.0.0.1:{ports['KALIMTAK_PREFECT__PORT']}/api",
        }

    def run(self, *command: str) -> str:
        result = subprocess.run(
            [sys.executable, *command],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def kalimtak(self, *arguments: str) -> str:
        return self.run("-c", "from flows.cli import main; main()", *arguments)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    found = Installation(tmp_path / "home", make_tiny_model(tmp_path / "base"))
    yield found
    found.kalimtak("down")


@pytest.mark.slow
@pytest.mark.timeout(3 * TIMEOUT_S)
def test_up_answers_trains_through_prefect_and_down_leaves_nothing(
    installation: Installation,
) -> None:
    assert installation.endpoint in installation.kalimtak("up")
    answer = httpx.post(
        f"{installation.endpoint}/api/generate",
        json={"text": "a mail to the team", "target_tool": "email", "user_id": "u"},
        timeout=120,
    )
    assert answer.status_code == 200, answer.text
    assert "already up" in installation.kalimtak("up")
    assert installation.kalimtak("audit", "list").count("use_settings") == 1
    installation.run("-m", "prefect", "deployment", "run", "retrain/weekly", "--watch")
    status = json.loads(installation.kalimtak("status", "--json"))
    assert status["up"] is True
    assert status["total_interactions"] == 1
    assert "too little data: 0 samples" in status["last_training"]
    started = state.load(installation.home)
    assert started is not None
    installation.kalimtak("down")
    assert processes.marked(started.marker) == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(installation.endpoint)
