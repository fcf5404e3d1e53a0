"""Ports for servers that tests start."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_port() -> int:
    """A port of this machine that nothing uses at the moment."""
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    """Different ones, the lowest first."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return sorted(probe.getsockname()[1] for probe in probes)


def stats_port() -> int:
    """One for HAProxy's statistics: the routers' own lie up to 5,000 above it."""
    return next(port for port in iter(free_port, None) if port <= 60_535)
