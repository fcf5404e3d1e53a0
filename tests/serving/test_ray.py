"""The whole of it on a real Ray cluster behind HAProxy, under traffic, while things change."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from sqlmodel import func, select

from registry import deployment
from registry.artifacts import ArtifactStore
from registry.clock import utc_now
from registry.crypto import load_keyring
from registry.db import Database, open_database
from registry.models import UserInteraction
from registry.settings import RaySettings, ServingSettings, Settings, TrainingSettings
from serving.haproxy import stop_orphans
from serving.runtime_env import environment
from tests.serving.conftest import WORKLOAD, Installation
from tests.support.network import free_port, stats_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CONNECTIONS = 4


def served_settings(home: Path, base: Path) -> Settings:
    return Settings(
        home=home,
        serving=ServingSettings(port=free_port(), max_new_tokens=4, request_timeout_s=60),
        training=TrainingSettings(base_model=str(base)),
        ray=RaySettings(haproxy_metrics_port=free_port(), haproxy_stats_port=stats_port()),
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Installation]:
    """A running cluster, and its registry."""
    home = tmp_path_factory.mktemp("home")
    settings = served_settings(home, tiny_base)
    (home / "settings.json").write_text(settings.model_dump_json())
    # A socket's path must be short.
    ray_folder = tempfile.mkdtemp(prefix="kr", dir="/tmp")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serving.serve_process", home / "settings.json", ray_folder],
        env={**os.environ, **environment(settings), "PYTHONPATH": str(ROOT)},
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    database = open_database(settings.resolved_database_url)
    yield Installation(
        settings=settings,
        database=database,
        store=ArtifactStore(settings.resolved_artifacts_url, cache=home / "cache"),
        keyring=load_keyring(home),
    )
    database.close()
    process.stdin.close()
    assert process.wait(120) == 0
    process.stdout.close()
    assert stop_orphans(settings) == []
    shutil.rmtree(ray_folder)


@dataclass
class Traffic:
    """What steady traffic saw."""

    failures: list[str] = field(default_factory=list)
    answers: list[tuple[float, str]] = field(default_factory=list)
    """When it was asked, by the monotonic clock, and which version answered."""

    def versions_since(self, moment: float) -> set[str]:
        return {version for at, version in self.answers if at >= moment}


def client(served: Installation) -> httpx.AsyncClient:
    port = served.settings.serving.port
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=90)


@asynccontextmanager
async def steady_traffic(served: Installation) -> AsyncIterator[Traffic]:
    traffic, running = Traffic(), True

    async def ask(number: int) -> None:
        async with client(served) as connection:
            while running:
                body = {"text": "Write an email", "user_id": f"u{number}", "max_tokens": 2}
                asked_at = time.monotonic()
                try:
                    response = await connection.post("/api/generate", json=body)
                except httpx.HTTPError as error:
                    traffic.failures.append(repr(error))
                    continue
                if response.status_code != 200:
                    traffic.failures.append(response.text)
                else:
                    version = response.json()["model_version"]
                    traffic.answers.append((asked_at, version))

    tasks = [asyncio.create_task(ask(number)) for number in range(CONNECTIONS)]
    try:
        yield traffic
    finally:
        running = False
        await asyncio.gather(*tasks)


async def until_followed(served: Installation) -> float:
    """Seconds until every router and replica has reported the present generation."""
    started, generation = time.monotonic(), served.desired().generation
    while not observed(served.database, generation):
        await asyncio.sleep(0.02)
        assert time.monotonic() - started < 60
    return time.monotonic() - started


async def until_asked(traffic: Traffic, count: int) -> set[str]:
    """The versions that answer what is asked from now on."""
    started = time.monotonic()
    while sum(at >= started for at, _ in traffic.answers) < count:
        await asyncio.sleep(0.02)
        assert time.monotonic() - started < 60, traffic.failures[:3]
    return traffic.versions_since(started)


async def test_without_a_version_the_base_answers_and_feedback_is_kept(
    served: Installation,
) -> None:
    async with client(served) as connection:
        ready = await connection.get("/readyz")
        assert ready.json()["state"] == "NoChampion"
        answer = (
            await connection.post(
                "/api/generate", json={"text": "Write an email", "user_id": "user-123"}
            )
        ).json()
        assert answer["role"] == "default"
        feedback = {"interaction_id": answer["interaction_id"], "score": 5}
        assert (await connection.post("/api/feedback", json=feedback)).status_code == 200
        history = (await connection.get("/api/history/user-123")).json()
        assert history["interactions"][0]["feedback_score"] == 5
        refused = await connection.post("/api/generate", content=b"[" * 50_000)
        assert refused.status_code == 400
        assert refused.headers["content-type"] == "application/problem+json"


async def test_promotion_and_rollback_lose_no_request_and_take_a_second(
    served: Installation, adapters: dict[str, Path]
) -> None:
    one, two = (served.register(adapters[name]) for name in ("one", "two"))
    delays = []
    async with steady_traffic(served) as traffic:
        for version in (one, two):
            served.deploy(version)
            await until_followed(served)
            assert await until_asked(traffic, 8) == {version}
        for _ in range(3):
            served.roll_back()
            delays.append(await until_followed(served))
            assert await until_asked(traffic, 8) == {one}
            served.deploy(two)
            delays.append(await until_followed(served))
            assert await until_asked(traffic, 8) == {two}
    assert traffic.failures == []
    # The best of six: on a machine with other work, single ones say little.
    assert min(delays) < 1.0, delays
    with served.database.read() as session:
        kept = session.exec(select(func.count()).select_from(UserInteraction)).one()
        failed = session.exec(
            select(func.count()).select_from(UserInteraction).where(UserInteraction.error != None)  # noqa: E711
        ).one()
    assert kept >= len(traffic.answers)
    assert failed == 0


async def test_a_corrupt_adapter_is_refused_while_the_champion_serves(
    served: Installation, adapters: dict[str, Path]
) -> None:
    champion = served.desired().champion
    assert champion is not None
    challenger = served.register(adapters["broken"])
    digest = served.digest(challenger)
    folder = Path(served.settings.home) / "artifacts" / digest
    (folder / "adapter_model.safetensors").write_bytes(b"garbage")
    async with steady_traffic(served) as traffic:
        experiment = served.try_out(challenger, share=1.0)
        await until_followed(served)
        await until_asked(traffic, 8)
    assert traffic.failures == []
    assert {version for _, version in traffic.answers} == {champion.version}
    with served.database.read() as session:
        reports = deployment.replicas(session, now=utc_now())
    refusals = [row.refused[challenger] for row in reports if row.refused]
    assert len(refusals) == 2
    assert all(digest in reason for reason in refusals)
    served.retire(experiment.id)


async def test_a_killed_model_replica_costs_no_request(served: Installation) -> None:
    async with steady_traffic(served) as traffic:
        await until_asked(traffic, 8)
        os.kill(replica_process(served, "Champion"), signal.SIGKILL)
        await until_asked(traffic, 20)
    assert traffic.failures == []


def test_what_nobody_waits_for_is_ended_on_the_replica(tmp_path: Path, tiny_base: Path) -> None:
    settings = served_settings(tmp_path, tiny_base)
    open_database(settings.resolved_database_url).close()
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    ray_folder = tempfile.mkdtemp(prefix="kr", dir="/tmp")
    seen = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.serving.replica_process",
            tmp_path / "settings.json",
            ray_folder,
        ],
        env={**os.environ, **environment(settings), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(ray_folder)
    assert json.loads(seen.stdout.splitlines()[-1]) == {
        "streamed": True,
        "closed_frees": True,
        "cancelled_frees": True,
        "one_of_two_frees": True,
        "killed": ["failed"],
        "retried": "ok",
        "lost": 1,
    }


def observed(database: Database, generation: int) -> bool:
    with database.read() as session:
        return deployment.is_observed(
            session, workload=WORKLOAD, generation=generation, now=utc_now()
        )


def replica_process(served: Installation, name: str) -> int:
    """The process of a deployment's replica in this cluster, among all on the machine."""
    token = environment(served.settings)["RAY_AUTH_TOKEN_PATH"].encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            if f"ServeReplica:kalimtak:{name}".encode() in title and token in (
                (folder / "environ").read_bytes()
            ):
                return int(folder.name)
        except OSError:  # it has ended meanwhile
            continue
    raise AssertionError(f"no replica of {name} runs")
