"""The local installation: Ray, Serve, Prefect's server and a worker, started and stopped.

`up` records every process before it starts the next one, so that `down` finds them after
whatever happened in between.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

import flows
from flows import trail
from flows.context import open_context
from flows.environment import (
    foreign_ray,
    of_processes,
    own_ray,
    prefect_url,
    ray_num_cpus,
    ray_temp_dir,
    settings_environment,
)
from flows.errors import LocalError
from flows.local import ports, processes, state
from flows.local.locks import STARTING, lock
from flows.local.processes import MARKER, Started
from flows.local.state import PREFECT, RAY, SERVING, LocalState
from registry.settings import Settings
from serving import haproxy, runtime_env

RUNNING = "yes"
Tell = Callable[[str], None]
"""Shows one line to whoever waits."""

DEPLOYING, SERVER, WORKER = "deploy", "prefect-server", "prefect-worker"
WORK_POOL = "kalimtak"
"""As prefect.yaml names it."""
START_TIMEOUT_S = 240.0
"""For each part; a first start on a busy machine is slow."""
STOP_TIMEOUT_S = 20.0
POLL_S = 0.25
LOG_LINES = 15
"""The end of a log that is shown when a part does not start."""
READY = "/readyz"
"""Answered with 200 once a request can be answered and written down."""


def up(settings: Settings, tell: Tell, *, actor: str) -> dict[str, str]:
    """Start everything, and return the addresses once a request has been answered.

    The audit log is told what settings it starts with. Nothing happens where all of it runs
    already. Raises `LocalError` where it runs with other settings, a port is taken or a part does
    not start; what was started until then is stopped again.
    """
    with _lock(settings.home):
        found = state.load(settings.home)
        if found is not None:
            if found.complete and all(map(processes.is_alive, found.processes)):
                _refuse_other_settings(settings, found)
                tell("already up")
                return found.addresses
            tell("what was started before has died or never came up: cleaning up")
            _stop(settings, found, tell)
        ports.check(settings)
        context = open_context(settings)
        with closing(context.database):
            trail.settings_in_force(context, actor=actor)
        launch = _Launch(settings, tell)
        try:
            launch.everything()
        except BaseException:
            _stop(settings, launch.state, tell)
            raise
        return launch.state.addresses


def down(settings: Settings, tell: Tell) -> bool:
    """Stop what `up` has started, and nothing else. False where there was nothing."""
    with _lock(settings.home):
        found = state.load(settings.home)
        if found is None:
            return False
        _stop(settings, found, tell)
        return True


@contextmanager
def at_rest(settings: Settings) -> Iterator[None]:
    """Nothing of the installation runs, or is started, during the block. Raises `LocalError`."""
    with _lock(settings.home):
        found = state.load(settings.home)
        alive = [] if found is None else _alive(found)
        if alive:
            raise LocalError(
                f"this installation is running ({alive[0].name}): 'kalimtak down' first"
            )
        yield


def is_up(settings: Settings) -> bool:
    """Whether everything that `up` has started still runs."""
    return how_it_runs(settings) == RUNNING


def how_it_runs(settings: Settings) -> str:
    """`RUNNING`, or what is amiss and what to do."""
    found = state.load(settings.home)
    if found is None or not _alive(found):
        return "no (kalimtak up)"
    dead = [process.name for process in found.processes if not processes.is_alive(process)]
    if dead:
        return f"partly: {', '.join(dead)} has died (kalimtak up starts all of it again)"
    return RUNNING if found.complete else "partly: kalimtak up is at work, or was ended"


def _alive(found: LocalState) -> list[Started]:
    """What still runs: of what was recorded, else of what that has started in turn."""
    recorded = [process for process in found.processes if processes.is_alive(process)]
    return recorded or processes.marked(found.marker)


def _refuse_other_settings(settings: Settings, found: LocalState) -> None:
    wanted = state.marks(settings)
    others = [name for name, mark in wanted.items() if found.settings.get(name) != mark]
    if others:
        raise LocalError(
            f"it runs with other settings ({', '.join(others)}): 'kalimtak down' first"
        )


class _Launch:
    """One `up` on its way: the state grows with each part."""

    def __init__(self, settings: Settings, tell: Tell) -> None:
        self._settings, self._tell = settings, tell
        self._folder = project_folder()
        self.state = LocalState(marker=uuid.uuid4().hex, settings=state.marks(settings))
        self._environment = {
            **of_processes(settings),
            **settings_environment(settings),
            MARKER: self.state.marker,
        }

    def everything(self) -> None:
        """Slow starters first; each is waited for where the next part needs it."""
        settings = self._settings
        self._address(PREFECT, prefect_url(settings))
        if ports.own_prefect(settings):
            self._start_server()
        foreign = foreign_ray(settings)
        if foreign is None:
            self._start_ray()
        else:
            self._address(RAY, foreign)
        serving = self._start(SERVING, "flows.local.serve", "start", lasting=False)
        self._start_worker()
        self._wait_for_serving(serving)
        self._save(replace(self.state, complete=True))

    def _start_ray(self) -> None:
        ray = self._settings.ray
        process = self._start(
            RAY,
            "ray.scripts.scripts", "start", "--head", "--block",
            "--node-ip-address=127.0.0.1", f"--port={ray.port}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={ray.dashboard_port}",
            f"--ray-client-server-port={ray.client_port}",
            f"--num-cpus={ray_num_cpus(self._settings)}",
            f"--temp-dir={ray_temp_dir(self._settings)}",
            "--disable-usage-stats", "--log-color=false",
        )  # fmt: skip
        self._wait(process, lambda: ports.is_open("127.0.0.1", ray.port))
        self._address(RAY, own_ray(self._settings))
        self._environment["RAY_ADDRESS"] = self.state.addresses[RAY]

    def _wait_for_serving(self, process: Started) -> None:
        address = self._settings.serving.url
        self._finish(process)
        self._wait(process, lambda: _answers(address + READY), lasting=False)
        self._address(SERVING, address)

    def _start_server(self) -> None:
        prefect = self._settings.prefect
        self._start(
            SERVER,
            "prefect", "server", "start",
            f"--host={prefect.host}", f"--port={prefect.port}",
        )  # fmt: skip

    def _start_worker(self) -> None:
        server = next((item for item in self.state.processes if item.name == SERVER), None)
        self._wait(server, lambda: _answers(prefect_url(self._settings) + "/health"))
        pool = WORK_POOL
        create = ("prefect", "work-pool", "create", pool, "--type", "process", "--overwrite")
        self._finish(self._start(DEPLOYING, *create, lasting=False))
        deploy = ("prefect", "deploy", "--all", "--no-prompt")
        self._finish(self._start(DEPLOYING, *deploy, lasting=False))
        self._start(WORKER, "prefect", "worker", "start", "--pool", pool, "--type", "process")

    def _start(self, name: str, module: str, *arguments: str, lasting: bool = True) -> Started:
        if name != DEPLOYING:
            self._tell(f"starting {name}")
        process = processes.start(
            name,
            [sys.executable, "-m", module, *arguments],
            environment=self._environment,
            log=self._settings.home / "logs" / f"{name}.log",
            folder=self._folder,
        )
        if lasting:
            self._save(replace(self.state, processes=(*self.state.processes, process)))
        return process

    def _finish(self, process: Started) -> None:
        """Wait until a command has ended. Raises `LocalError` where it did not end well."""
        code = processes.wait(process, timeout_s=START_TIMEOUT_S)
        if code is None:
            text = f"did not end within {START_TIMEOUT_S:.0f} s, and was ended"
            raise LocalError(_not_started(process, text))
        if code != 0:
            raise LocalError(_not_started(process, f"ended with exit code {code}"))

    def _wait(
        self, process: Started | None, ready: Callable[[], bool], *, lasting: bool = True
    ) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if process is not None and lasting and not processes.is_alive(process):
                raise LocalError(_not_started(process, "has ended"))
            if time.monotonic() > deadline:
                text = f"did not answer within {START_TIMEOUT_S:.0f} s"
                raise LocalError(_not_started(process, text) if process else f"{PREFECT} {text}")
            time.sleep(POLL_S)

    def _address(self, name: str, address: str) -> None:
        self._save(replace(self.state, addresses={**self.state.addresses, name: address}))

    def _save(self, grown: LocalState) -> None:
        self.state = grown
        state.save(self._settings.home, grown)


def project_folder() -> Path:
    """The checkout: where `prefect.yaml` is. Raises `LocalError`."""
    for folder in (Path.cwd(), Path(flows.__file__).parent.parent):
        if (folder / "prefect.yaml").exists():
            return folder
    raise LocalError(f"no prefect.yaml in {Path.cwd()}: run this in the project's checkout")


def _stop(settings: Settings, found: LocalState, tell: Tell) -> None:
    """Worker → server → serving → Ray, then whatever of ours is left."""
    by_name = {process.name: process for process in found.processes}
    for name in (WORKER, SERVER):
        if name in by_name and processes.is_alive(by_name[name]):
            tell(f"stopping {name}")
            processes.stop(by_name[name], timeout_s=STOP_TIMEOUT_S)
    # By what was recorded: settings and environment may name another cluster by now.
    ray, address = by_name.get(RAY), found.addresses.get(RAY)
    if address is not None and (ray is None or processes.is_alive(ray)):
        tell(f"stopping {SERVING}")
        _stop_serving(settings, found, address, is_ours=ray is not None)
    if ray is not None and processes.is_alive(ray):
        tell(f"stopping {RAY}")
        processes.stop(ray, timeout_s=STOP_TIMEOUT_S)
    processes.sweep(found.marker, timeout_s=STOP_TIMEOUT_S)
    haproxy.stop_orphans(settings)
    state.forget(settings.home)


def _stop_serving(settings: Settings, found: LocalState, address: str, *, is_ours: bool) -> None:
    """Let the replicas end what they have begun; where that fails, Ray's end is theirs."""
    environment = {
        **(runtime_env.environment(settings) if is_ours else {}),
        **of_processes(settings),
        **settings_environment(settings),
        MARKER: found.marker,
        "RAY_ADDRESS": address,
    }
    process = processes.start(
        SERVING,
        [sys.executable, "-m", "flows.local.serve", "stop" if is_ours else "leave", address],
        environment=environment,
        log=settings.home / "logs" / f"{SERVING}.log",
        folder=project_folder(),
    )
    processes.wait(process, timeout_s=2 * STOP_TIMEOUT_S)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _not_started(process: Started, what: str) -> str:
    lines = Path(process.log).read_text(encoding="utf-8", errors="replace").splitlines()
    tail = "\n".join(lines[-LOG_LINES:])
    return f"{process.name} {what}; the end of {process.log}:\n{tail}"


def _lock(home: Path) -> AbstractContextManager[None]:
    """One `up`, `down` or `restore` at a time."""
    return lock(home, STARTING, who="'kalimtak up', 'down' or 'restore'")
