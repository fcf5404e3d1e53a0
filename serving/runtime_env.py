"""The environment that Ray and Ray Serve need before they start: HAProxy, ports, token, threads.

    eval "$(python -m serving.runtime_env)"

Without Ray: whoever starts a cluster, or a shell, sets these variables first. Everything
that listens is bound to loopback where Ray lets us.
"""

import math
import secrets
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from registry.field_keys import create_private
from registry.folders import make_private
from registry.settings import Settings, load_settings
from serving import haproxy

TOKEN_BYTES = 32
DIRECT_INGRESS_HTTP_OFFSET = 4_000
DIRECT_INGRESS_NUM_PORTS = 1_000
HARD_STOP_MARGIN_S = 60
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Between a router and a replica; gRPC's own limit of 4 MiB is less than a call may hold."""


def environment(settings: Settings) -> dict[str, str]:
    """Variables for every process that starts, joins or is started by the cluster.

    Writes the token and the HAProxy wrapper that they name into `settings.home`/run.
    """
    run = run_folder(settings)
    sockets = haproxy.socket_folder(settings)
    first_port = settings.ray.haproxy_stats_port + DIRECT_INGRESS_HTTP_OFFSET
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file(run)),
        "RAY_USAGE_STATS_ENABLED": "0",
        **_own_cluster(settings),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(haproxy.write_wrapper(run, settings)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(sockets / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(sockets / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(sockets),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(sockets / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(sockets / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(settings.ray.haproxy_metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(settings.ray.haproxy_stats_port),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(haproxy.fallback_port(settings)),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(first_port - 1),
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MAX_MESSAGE_BYTES),
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(haproxy.BUFFER_BYTES),
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


def token_file(run: Path) -> Path:
    """The cluster's token, made on first use, readable by its owner alone."""
    path = run / "ray_token"
    if not path.exists():
        create_private(path, secrets.token_hex(TOKEN_BYTES))
    return path


def shell_exports(variables: Mapping[str, str]) -> str:
    """The variables as lines that a shell can evaluate."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


if __name__ == "__main__":
    sys.stdout.write(shell_exports(environment(load_settings())) + "\n")
