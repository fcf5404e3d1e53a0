"""The ports of the local installation: whose they are, and whether they are free."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from flows.environment import foreign_ray, prefect_url
from flows.errors import LocalError
from registry.errors import SettingsError
from registry.settings import Settings
from serving.access.exposure import is_loopback, refuse_exposed

PREFECT_PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"
TCP = socket.IPPROTO_TCP
ENDPOINT = ("serving.port", "ray.haproxy_metrics_port", "ray.haproxy_stats_port")


def own_prefect(settings: Settings) -> bool:
    """Whether the Prefect server is one that `up` starts, rather than `PREFECT_API_URL`'s."""
    named, own = urlsplit(prefect_url(settings)), urlsplit(settings.prefect.url)
    if (named.scheme, named.port, named.path) != (own.scheme, own.port, own.path):
        return False
    names = (named.hostname or "", own.hostname or "")
    return names[0] == names[1] or all(map(is_loopback, names))


def check(settings: Settings) -> None:
    """Raise `LocalError` naming the first port that cannot be had, and the setting to change.

    Raises `SettingsError` where the endpoint or Prefect would be open to the network.
    """
    refuse_exposed(settings)
    _refuse_exposed_prefect(settings, os.environ)
    _check(_wanted(settings))


def _refuse_exposed_prefect(settings: Settings, environ: Mapping[str, str]) -> None:
    """Whoever reaches a Prefect server that asks for nothing can have this machine run things."""
    host = settings.prefect.host
    if not own_prefect(settings) or is_loopback(host) or environ.get(PREFECT_PASSWORD):
        return
    raise SettingsError(
        f"prefect.host = '{host}' opens Prefect to the network without a password: set "
        f"{PREFECT_PASSWORD} (and PREFECT_API_AUTH_STRING, the same), or keep it at 127.0.0.1"
    )


def check_endpoint(settings: Settings) -> None:
    """The same for the ports of the endpoint alone."""
    _check([wanted for wanted in _wanted(settings) if wanted[0] in ENDPOINT])


def _check(wanted: Sequence[tuple[str, str, int]]) -> None:
    for setting, host, port in wanted:
        try:
            _bind(host, port)
        except OSError as error:
            raise LocalError(_cannot(error, setting, host, port)) from error


def _bind(host: str, port: int) -> None:
    # No host is every address; a name may be one of either family.
    family, kind, _, _, address = socket.getaddrinfo(host or "0.0.0.0", port, proto=TCP)[0]
    with socket.socket(family, kind) as probe:
        # As servers do, so that connections that have ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _cannot(error: OSError, setting: str, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use: set {setting} to another one, or stop what uses it"
    if error.errno == errno.EACCES:
        return f"port {port} is not for this user: set {setting} to one above 1023"
    part = setting.partition(".")[0]
    return (
        f"{part} cannot listen on '{host}', port {port}: {error.strerror}; set {part}.host to an "
        "address of this machine"
    )


def is_open(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def _wanted(settings: Settings) -> list[tuple[str, str, int]]:
    wanted = [("serving.port", settings.serving.host, settings.serving.port)]
    if own_prefect(settings):
        wanted.append(("prefect.port", settings.prefect.host, settings.prefect.port))
    if foreign_ray(settings) is None:
        ray = settings.ray
        wanted += [
            ("ray.port", "127.0.0.1", ray.port),
            ("ray.dashboard_port", "127.0.0.1", ray.dashboard_port),
            ("ray.client_port", "127.0.0.1", ray.client_port),
            ("ray.haproxy_metrics_port", "", ray.haproxy_metrics_port),
            ("ray.haproxy_stats_port", "", ray.haproxy_stats_port),
        ]
    return wanted
