"""prefect.yaml, on a real Prefect server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlmodel import select

from flows.context import Context
from registry import deployment
from registry.models import TriggerCheck
from tests.support.network import free_port

PROJECT = Path(__file__).parents[2]
DEPLOYMENTS = {
    "curate/daily": "0 2 * * *",
    "check-triggers/hourly": "5 * * * *",
    "retrain/weekly": "0 3 * * 0",
    "experiment/quarter-hourly": "*/15 * * * *",
    "evaluate/monthly": "0 4 1 * *",
    "retention/daily": "30 2 * * *",
}
TIMEOUT_S = 240


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of commands that speak to a server of this test's own."""
    port = free_port()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _until(lambda: _answers(f"http://127.0.0.1:{port}/api/health"))
        yield environment
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_file_has_no_null_and_every_deployment() -> None:
    content = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    assert [item["name"] for item in content["deployments"]] == [
        name.partition("/")[2] for name in DEPLOYMENTS
    ]
    assert None not in list(_values(content))


@pytest.mark.timeout(600)
def test_deploying_all_yields_a_scheduled_run_for_every_schedule(server: dict[str, str]) -> None:
    prefect(server, "work-pool", "create", "kalimtak", "--type", "process")
    said = prefect(server, "deploy", "--all", "--no-prompt")
    assert set(re.findall(r"'([\w-]+/[\w-]+)'", said)) >= set(DEPLOYMENTS), said
    found = {item["id"]: item for item in read(server, "deployments")}
    schedules = [
        (item["name"], item["schedules"][0]["schedule"]["cron"]) for item in found.values()
    ]
    assert sorted(schedules) == sorted(
        (name.partition("/")[2], cron) for name, cron in DEPLOYMENTS.items()
    )
    weekly = next(item for item in found.values() if item["name"] == "weekly")
    assert weekly["global_concurrency_limit"]["limit"] == 1

    def scheduled() -> set[str]:
        runs = read(server, "flow_runs")
        return {
            run["deployment_id"]
            for run in runs
            if run["state_type"] == "SCHEDULED" and run["auto_scheduled"]
        }

    _until(lambda: scheduled() == set(found))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_schedule_reaches_every_workload_though_an_earlier_deploy_named_one(
    server: dict[str, str], context: Context
) -> None:
    with context.database.write() as session:
        deployment.add_workload(session, "support", now=context.clock())
    environment = {**server, "KALIMTAK_HOME": str(context.settings.home)}
    prefect(environment, "work-pool", "create", "kalimtak", "--type", "process")
    deploy = ("--no-prompt", "deploy", "--name", "hourly")
    prefect(environment, *deploy, "--param", "workload=default")
    prefect(environment, *deploy)
    (deployed,) = read(environment, "deployments")
    assert deployed["parameters"] == {}
    _until(lambda: read(environment, "flow_runs"))
    run = read(environment, "flow_runs")[0]
    assert run["auto_scheduled"]
    due = {"type": "SCHEDULED", "state_details": {"scheduled_time": run["created"]}}
    httpx.post(
        f"{environment['PREFECT_API_URL']}/flow_runs/{run['id']}/set_state",
        json={"state": due, "force": True},
        timeout=30,
    ).raise_for_status()
    prefect(environment, "flow-run", "execute", run["id"])
    with context.database.read() as session:
        checked = session.exec(select(TriggerCheck.workload)).all()
    assert list(checked) == ["default", "support"]


def prefect(environment: dict[str, str], *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def read(environment: dict[str, str], what: str) -> list[dict[str, Any]]:
    response = httpx.post(f"{environment['PREFECT_API_URL']}/{what}/filter", json={}, timeout=30)
    response.raise_for_status()
    found: list[dict[str, Any]] = response.json()
    return found


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _until(happened: Any) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        assert time.monotonic() < deadline, f"not within {TIMEOUT_S} s"
        time.sleep(0.5)


def _values(content: Any) -> Iterator[Any]:
    if isinstance(content, dict):
        for value in content.values():
            yield from _values(value)
    elif isinstance(content, list):
        for value in content:
            yield from _values(value)
    else:
        yield content
