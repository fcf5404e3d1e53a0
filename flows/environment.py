"""The environment of everything that runs: Ray and Prefect in one place.

Values already set in the process's environment win, so that a cluster or a server of one's
own is used. Ray reads its part once, when it is imported: `apply` comes before that.
"""

from __future__ import annotations

import os
from pathlib import Path

import flows.local.state
from flows.local.processes import is_alive
from registry.settings import DIRECTORY_VARIABLE, PREFIX, Settings
from serving import haproxy, runtime_env

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
MIN_CPUS = 4
"""Logical CPUs of a local Ray: serving holds some, and training must find the rest."""


def prefect_url(settings: Settings) -> str:
    """The API of the Prefect server: `PREFECT_API_URL`, else the one that `up` starts."""
    return (os.environ.get("PREFECT_API_URL") or settings.prefect.url).rstrip("/")


def settings_environment(settings: Settings) -> dict[str, str]:
    """What makes a process in another folder read the same settings."""
    directory = Path.cwd() / os.environ.get(DIRECTORY_VARIABLE, "")
    return {f"{PREFIX}HOME": str(settings.home), DIRECTORY_VARIABLE: str(directory)}


def prefect_environment(settings: Settings) -> dict[str, str]:
    """What Prefect's server, worker and commands need; nothing is sent anywhere."""
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_API_URL": prefect_url(settings),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_CLI_COLORS": "false",
    }


def own_ray(settings: Settings) -> str:
    """The address of the Ray that `up` starts."""
    return f"127.0.0.1:{settings.ray.port}"


def foreign_ray(settings: Settings) -> str | None:
    """The cluster of one's own that is to be used, by the setting or `RAY_ADDRESS`."""
    address = settings.ray.address or os.environ.get("RAY_ADDRESS") or None
    return None if address == own_ray(settings) else address


def ray_address(settings: Settings) -> str | None:
    """The cluster to use: the setting, `RAY_ADDRESS`, or the one that `up` has started."""
    address = foreign_ray(settings) or os.environ.get("RAY_ADDRESS")
    if address:
        return address
    state = flows.local.state.load(settings.home)
    if state is None or not any(
        process.name == flows.local.state.RAY and is_alive(process) for process in state.processes
    ):
        return None
    return state.addresses.get(flows.local.state.RAY)


def ray_environment(settings: Settings) -> dict[str, str]:
    """What every process that speaks to our own Ray needs; a foreign cluster gets nothing.

    It must be set before Ray is imported.
    """
    address = foreign_ray(settings)
    if address is not None:
        return {"RAY_ADDRESS": address}
    return runtime_env.environment(settings)


def ray_temp_dir(settings: Settings) -> Path:
    """Ray's own folder: short, because the path of a Unix socket ends at 107 bytes.

    Ray opens its folder to everybody; the one around it is closed.
    """
    return haproxy.socket_folder(settings) / "ray"


def ray_num_cpus(settings: Settings) -> int:
    """Logical CPUs of a local Ray."""
    return settings.ray.num_cpus or max(MIN_CPUS, os.cpu_count() or 1)


def of_processes(settings: Settings) -> dict[str, str]:
    """The environment of this process and of those that it starts, with what is missing.

    What is set already wins; a variable of ours that is empty counts as missing.
    """
    wanted = {**prefect_environment(settings), **ray_environment(settings)}
    ours = {*wanted, "RAY_ADDRESS"}
    given = {name: value for name, value in os.environ.items() if value or name not in ours}
    return {**wanted, **given, **_past_proxies(settings)}


def _past_proxies(settings: Settings) -> dict[str, str]:
    """No proxy stands between the parts of one machine, whatever goes through one besides."""
    given = f"{os.environ.get('no_proxy', '')},{os.environ.get('NO_PROXY', '')}"
    own = (*LOOPBACK_HOSTS, settings.serving.host, settings.prefect.host)
    hosts = dict.fromkeys([*(host.strip() for host in given.split(",")), *own])
    # A star, which stands for all, is understood where it stands alone.
    joined = "*" if "*" in hosts else ",".join(host for host in hosts if host)
    return {"no_proxy": joined, "NO_PROXY": joined}


def apply(settings: Settings) -> None:
    """Put what is missing into this process's environment."""
    os.environ.update(of_processes(settings))
