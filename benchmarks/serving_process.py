"""[ray] Serves until its standard input closes: … SETTINGS.json RAY_FOLDER [noop]"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from registry.settings import Settings
from serving.haproxy import stop_orphans
from serving.runtime_env import environment

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stats_port() -> int:
    """One for HAProxy's statistics: the routers' own lie up to 5,000 above it."""
    return next(port for port in iter(free_port, None) if port <= 60_535)


@dataclass(frozen=True)
class System:
    """A running system."""

    settings: Settings

    def processes(self, deployment: str) -> list[int]:
        """The replicas of a deployment ("Router", "Champion"), among all on the machine."""
        token = environment(self.settings)["RAY_AUTH_TOKEN_PATH"].encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                title = (folder / "cmdline").read_bytes()
                is_one = title.startswith(b"ray::ServeReplica") and (
                    f":{deployment}".encode() in title
                )
                if is_one and token in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it has ended meanwhile
                continue
        return sorted(found)

    def processor_s(self) -> float:
        """Processor time that all processes of the cluster have taken so far, in seconds."""
        token = environment(self.settings)["RAY_AUTH_TOKEN_PATH"].encode()
        ticks = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if token in (folder / "environ").read_bytes():
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    ticks += int(fields[11]) + int(fields[12])
            except OSError:  # it has ended meanwhile, or is somebody else's
                continue
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self, deployment: str) -> bool:
        """Kill -9 one replica of a deployment; whether there was one."""
        found = self.processes(deployment)
        if found:
            os.kill(found[0], signal.SIGKILL)
        return bool(found)


@contextmanager
def serving(settings: Settings, *, noop: bool = False) -> Iterator[System]:
    """A system on a Ray cluster of its own, in a process of its own."""
    settings.home.mkdir(parents=True, exist_ok=True)
    file = settings.home / "settings.json"
    file.write_text(settings.model_dump_json())
    folder = tempfile.mkdtemp(prefix="kb", dir="/tmp")  # a socket's path must be short
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, str(file), folder, *(["noop"] if noop else [])],
        env={**os.environ, **environment(settings), "PYTHONPATH": str(ROOT)},
        cwd=settings.home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the system did not start: exit code {process.wait()}")
        yield System(settings)
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        stop_orphans(settings)
        shutil.rmtree(folder, ignore_errors=True)


def main(settings_file: str, ray_folder: str, kind: str = "") -> None:
    """Serve."""
    import ray
    from ray import serve

    from serving.app import APP_NAME, http_options, start

    settings = Settings.model_validate_json(Path(settings_file).read_text())
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _temp_dir=ray_folder,
        logging_level="warning",
        log_to_driver=False,
    )
    if kind == "noop":
        from benchmarks.noop_models import bare_app, router_app

        serve.start(http_options=http_options(settings))
        serve.run(router_app(settings), name=APP_NAME, route_prefix="/")
        serve.run(bare_app(settings), name="bare", route_prefix="/bare")
    else:
        start(settings)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
