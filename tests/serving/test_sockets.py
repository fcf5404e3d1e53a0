"""Nothing that answers without a credential listens beyond loopback: docs/security.md, held true.

The whole installation runs, as `kalimtak up` starts it, and every socket is asked.
"""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import grpc
import httpx
import pytest

from flows.environment import ray_environment
from flows.local import processes, state
from flows.local.state import LocalState
from registry.settings import Settings, load_settings
from tests.flows.local.test_up_and_down import PROJECT, Installation
from tests.support.sockets import Listener, children_named, family, listeners
from tests.support.tiny_model import make_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TABLE = PROJECT / "docs" / "security.md"
HEADING = "## What listens where"
LOOPBACK = "127.0.0.1"
ANY = "any"
SETTLED_S = 60
"""Some of Ray's and Prefect's helpers begin to listen after the first request is answered."""
LOOKS_AT_WORKERS = 10

NOTHING, TOKEN, APPLICATION, RUN = "none", "Ray token", "application", "run token"
SERVE_CALL = "/ray.serve.ASGIService/HandleRequest"
RAY_CALLS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.rpc.ReporterService/GetTraceback",
    SERVE_CALL,
)
"""One of each of Ray's services; where a service is not offered, a call is `UNIMPLEMENTED`."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    process: str
    """Part of the command line."""
    address: str
    """An address, or a setting that holds one."""
    port: str
    """A number, a setting, one and an offset or a range of them, or `ANY`."""
    credential: str

    def fits(self, listener: Listener, settings: Settings) -> bool:
        return (
            self.process in listener.process
            and listener.address == _value(self.address, settings)
            and (self.port == ANY or listener.port in self._ports(settings))
        )

    def _ports(self, settings: Settings) -> range:
        found = re.fullmatch(r"(\S+?)(?: \+ (\d+)(?: to (\d+))?)?", self.port)
        assert found is not None, self
        base, first = int(_value(found[1], settings)), int(found[2] or 0)
        return range(base + first, base + int(found[3] or first) + 1)


def _value(cell: str, settings: Settings) -> str:
    """What the setting of that name holds; the cell itself where it names none."""
    return str(attrgetter(cell)(settings)) if re.fullmatch(r"[a-z]+\.[a-z_]+", cell) else cell


def table() -> list[Row]:
    section = TABLE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["what", "process", "address", "port", "credential"]
    rows = [Row(*row) for row in cells[2:]]
    assert {row.credential for row in rows} == {NOTHING, TOKEN, APPLICATION, RUN}
    return rows


def asked_for(listener: Listener) -> str:
    """What a listener asks of somebody who has nothing; `RUN` where it does not answer at all."""
    try:
        # The path of Ray's jobs, which run code.
        answer = httpx.get(f"http://{listener.url}/api/jobs/", timeout=10)
    except httpx.HTTPError:
        codes = {call(listener, method, b"") for method in RAY_CALLS}
        if grpc.StatusCode.UNAUTHENTICATED in codes:
            return TOKEN
        return RUN if codes == {grpc.StatusCode.UNAVAILABLE} else NOTHING
    if answer.status_code == 401:
        return TOKEN
    ours = answer.headers.get("content-type") == "application/problem+json"
    return APPLICATION if ours else NOTHING


def call(
    listener: Listener, method: str, body: bytes, token: str | None = None
) -> grpc.StatusCode | None:
    """How a gRPC call ends; None if well."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(listener.url) as channel:
        try:
            channel.unary_unary(method)(body, timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[no-any-return]
    return None


@dataclass(frozen=True)
class Running:
    """An installation that is up."""

    installation: Installation
    settings: Settings
    state: LocalState

    def processes(self) -> set[int]:
        # A process that renames itself may write over its environment, and the marker in it.
        started = [*self.state.processes, *processes.marked(self.state.marker)]
        return family(process.pid for process in started)

    def listeners(self) -> set[Listener]:
        return listeners(self.processes())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("sockets")
    installation = Installation(folder / "home", make_tiny_model(folder / "base"))
    installation.kalimtak("up")
    started = state.load(installation.home)
    assert started is not None
    settings = load_settings(installation.environment, directory=folder)
    yield Running(installation, settings, started)
    installation.kalimtak("down")


def test_every_listening_socket_is_in_the_table_and_the_other_way_round(running: Running) -> None:
    rows, deadline = table(), time.monotonic() + SETTLED_S
    unused = rows
    while unused and time.monotonic() < deadline:
        asked = {listener: asked_for(listener) for listener in running.listeners()}
        used = {
            listener: [
                row
                for row in rows
                if row.fits(listener, running.settings) and row.credential == credential
            ]
            for listener, credential in asked.items()
        }
        unused = [row for row in rows if not any(row in fitting for fitting in used.values())]
    assert [(listener, asked[listener]) for listener in sorted(used) if not used[listener]] == []
    assert [row.what for row in unused] == [], sorted(used)
    assert len(asked) > 15


def test_what_asks_for_nothing_is_on_loopback(running: Running) -> None:
    beyond = [listener for listener in running.listeners() if listener.address != LOOPBACK]
    assert {asked_for(listener) for listener in beyond} <= {TOKEN}


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def test_calls_between_replicas_read_nothing_from_a_stranger(
    running: Running, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    pickled = pickle.dumps(Touch(proof))
    # Field 1 of ray.serve.ASGIRequest, with its length in two groups of seven bits.
    body = b"\x0a" + bytes([len(pickled) & 0x7F | 0x80, len(pickled) >> 7]) + pickled
    replicas = [it for it in running.listeners() if it.address != LOOPBACK]
    assert len(replicas) >= 3
    for replica in replicas:
        for token in (None, "0" * 64):
            assert call(replica, SERVE_CALL, body, token) == grpc.StatusCode.UNAUTHENTICATED
    assert not proof.exists()
    token = (running.installation.home / "run" / "ray_token").read_text()
    call(replicas[0], SERVE_CALL, body, token)
    assert proof.exists()  # so that it would have shown


def test_a_training_with_two_workers_listens_on_loopback_alone(
    running: Running, tmp_path: Path
) -> None:
    rows = [
        {
            "id": f"e{number}",
            "messages": [
                {"role": "user", "content": f"Write {number}"},
                {"role": "assistant", "content": "Role: x"},
            ],
            "target_tool": "email",
            "weight": 1.0,
        }
        # Enough steps for a look at the workers while they speak to each other, however slow.
        for number in range(800)
    ]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before, during = running.listeners(), set[Listener]()
    command = ["-m", "training.launch", "--recipe", "tiny_cpu", "--data", str(data)]
    command += ["--base", running.settings.training.base_model, "--out", str(tmp_path / "adapter")]
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=PROJECT,
        env={
            **running.installation.environment,
            **ray_environment(running.settings),
            processes.MARKER: running.state.marker,
            "RAY_ADDRESS": running.state.addresses[state.RAY],
        },
    )
    parents, workers = running.processes(), set[Listener]()
    while process.poll() is None:
        # A look at all takes seconds on a busy machine, in which workers come and go.
        for _ in range(LOOKS_AT_WORKERS):
            workers |= listeners(children_named("RayTrainWorker", parents))
            time.sleep(0.1)
        during |= running.listeners() - before
    assert process.returncode == 0
    during |= workers
    assert len(workers) >= 5  # a port for each worker's calls and its gradients; the store
    assert [listener for listener in sorted(during) if listener.address != LOOPBACK] == []
