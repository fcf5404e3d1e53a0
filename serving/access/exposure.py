"""Refuses to open the endpoint to the network while it asks nobody who they are."""

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from registry.errors import SettingsError
from registry.settings import Settings
from serving.problems import ProblemError


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


def refuse_other_sites(headers: Mapping[str, str]) -> None:
    """Raise `ProblemError` 403 where a page of another site has a browser ask.

    Without authentication whoever reaches the endpoint is an admin, and any page that is open
    in a browser on this machine reaches it: by name (DNS rebinding, told by `Host`), or
    outright (told by `Origin`).
    """
    for name, value in (("Host", headers.get("host")), ("Origin", headers.get("origin"))):
        if value is not None and not _names_this_machine(value):
            raise ProblemError(
                403,
                f"{name} '{value[:100]}' is not this machine, and authentication is off: set "
                "KALIMTAK_AUTH__ENABLED=true to serve others",
            )


def _names_this_machine(value: str) -> bool:
    """Without a look at any name server: whoever rebinds a name owns its answers."""
    try:
        host = urlsplit(value if "//" in value else f"//{value}").hostname
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
