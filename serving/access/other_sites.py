"""Refuses pages of other sites that have a browser of this machine ask."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from serving.problems import ProblemError


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
