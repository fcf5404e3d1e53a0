"""A retraining that Prefect cancels, or whose machine is taken away, while Ray Train works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from sqlmodel import col, select

from flows.context import Context
from registry import versions
from registry.models import RetrainRun
from tests.flows.test_deployments import prefect, read
from tests.flows.test_deployments import server as server
from tests.flows.test_retrain_on_ray import RECIPE
from tests.support.ray_cluster import RAY_WARNINGS, train_workers
from tests.support.tiny_model import make_tiny_model
from tests.support.usage import log_liked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), *RAY_WARNINGS]
POOL = "kalimtak"
PATIENCE_S = 450
"""A machine that others use starts Ray's workers in minutes."""


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a Ray that outlives the flow runs."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def installation(cluster: str, context: Context, tmp_path: Path) -> dict[str, str]:
    """The environment of an installation whose training would take hours."""
    recipe = tmp_path / "endless.toml"
    text = RECIPE.replace("num_steps = 4", "num_steps = 1000000")
    recipe.write_text(text.replace("checkpoint_every = 4", "checkpoint_every = 20"))
    log_liked(context, 60, at=context.clock())
    return {
        "RAY_ADDRESS": cluster,
        "KALIMTAK_HOME": str(context.settings.home),
        "KALIMTAK_TRAINING__MIN_SAMPLES": "20",
        "KALIMTAK_TRAINING__BASE_MODEL": str(make_tiny_model(tmp_path / "base")),
        "KALIMTAK_TRAINING__RECIPE": str(recipe),
    }


@pytest.fixture
def environment(installation: dict[str, str], server: dict[str, str]) -> dict[str, str]:
    """That training, deployed on a real server, which comes last: it inherits Ray's token."""
    found = {
        **server,
        **installation,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    }
    prefect(found, "work-pool", "create", POOL, "--type", "process")
    prefect(found, "--no-prompt", "deploy", "-n", "weekly")
    return found


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """What carries out the runs of the pool."""
    with (tmp_path / "worker.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL],
            env=environment,
            cwd=Path(__file__).parents[2],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield
    process.terminate()
    process.wait(timeout=60)


def test_a_process_that_is_told_to_end_stops_its_ray_job_and_registers_nothing(
    installation: dict[str, str], context: Context
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "retrain"], env={**os.environ, **installation}
    )
    try:
        _until(lambda: _checkpoints(context, runs=1))
        assert train_workers()
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)
    _assert_gone(context, number=1, by="SystemExit")


@pytest.mark.usefixtures("worker")
def test_a_run_that_prefect_cancels_stops_its_ray_job_and_registers_nothing(
    environment: dict[str, str], context: Context
) -> None:
    cancelled = _start(environment)
    _until(lambda: _checkpoints(context, runs=1))
    _post(
        environment,
        f"flow_runs/{cancelled}/set_state",
        {"state": {"type": "CANCELLING"}, "force": True},
    )
    _until(lambda: _state(environment, cancelled) == "CANCELLED")
    _assert_gone(context, number=1)

    preempted = _start(environment)
    _until(lambda: _checkpoints(context, runs=1))
    os.kill(_process_of(preempted), signal.SIGTERM)
    _until(lambda: _state(environment, preempted) == "CRASHED")
    _assert_gone(context, number=2)


def _until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s"
        time.sleep(0.2)


def _assert_gone(context: Context, *, number: int, by: str = "TerminationSignal") -> None:
    """No worker of the run is left on Ray, which goes on; the registry tells what happened."""
    _until(lambda: not train_workers())
    _until(lambda: ray.available_resources().get("CPU") == 2)
    # Ray's part is stopped first; Prefect may call the run cancelled before the flow has ended.
    _until(lambda: len(_failed(context)) == number)
    with context.database.read() as session:
        assert versions.list_versions(session, workload="default") == []
        assert len(session.exec(select(RetrainRun)).all()) == number
    assert _failed(context)[-1] == (
        f"stopped from outside ({by}), as by a cancellation: its work on Ray was "
        "stopped with it, and nothing was registered"
    )


def _failed(context: Context) -> list[str | None]:
    """The reasons of the runs that have failed, in their order."""
    query = select(RetrainRun.reason).where(RetrainRun.status == "failed")
    with context.database.read() as session:
        return list(session.exec(query.order_by(col(RetrainRun.started_at))))


def _start(environment: dict[str, str]) -> str:
    deployment = next(one for one in read(environment, "deployments") if one["name"] == "weekly")
    made = _post(
        environment,
        f"deployments/{deployment['id']}/create_flow_run",
        {"state": {"type": "SCHEDULED"}, "parameters": {"force": True}},
    )
    return str(made["id"])


def _post(environment: dict[str, str], path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = httpx.post(f"{environment['PREFECT_API_URL']}/{path}", json=body, timeout=30)
    response.raise_for_status()
    found: dict[str, Any] = response.json()
    return found


def _state(environment: dict[str, str], run: str) -> str:
    response = httpx.get(f"{environment['PREFECT_API_URL']}/flow_runs/{run}", timeout=30)
    return str(response.json()["state_type"])


def _checkpoints(context: Context, *, runs: int) -> bool:
    """Whether so many runs have written one."""
    found = context.folder("runs").glob("*/training/checkpoints/*/checkpoint_*")
    return len({path.parent for path in found}) == runs


def _process_of(run: str) -> int:
    """The process of the flow itself, which carries its id."""
    mark = f"PREFECT__FLOW_RUN_ID={run}".encode()
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return next(pid for pid in pids if mark in _read(pid, "environ"))


def _read(pid: int, file: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / file).read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
