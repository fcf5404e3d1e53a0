"""Refuses to open the endpoint to the network while it asks nobody who they are."""

import ipaddress
import socket

from registry.errors import SettingsError
from registry.settings import Settings


def refuse_exposed(settings: Settings) -> None:
    """Raise `SettingsError` where the endpoint binds beyond loopback without authentication."""
    host = settings.serving.host
    if settings.auth.enabled or is_loopback(host):
        return
    raise SettingsError(
        f"serving.host = '{host}' opens the endpoint to the network, and auth.enabled is off: "
        "set KALIMTAK_AUTH__ENABLED=true, or keep serving.host at 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Whether a server on `host` is reached from this machine alone."""
    # An address is its own answer; a name has those that the machine finds for it.
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in found)
