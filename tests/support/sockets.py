"""Which TCP sockets a set of processes listens on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERYWHERE = "all"
MAPPED = "::ffff:"


@dataclass(frozen=True, order=True)
class Listener:
    """A listening socket."""

    process: str
    """The command line, or what the process calls itself."""
    address: str
    """`EVERYWHERE`, or one address; one of IPv4 within IPv6 is written as IPv4."""
    port: int

    @property
    def url(self) -> str:
        """`host:port` to reach it from here."""
        return f"{'localhost' if self.address == EVERYWHERE else self.address}:{self.port}"


def family(pids: Iterable[int]) -> set[int]:
    """These processes and all that descend from them."""
    found = set()
    for pid in pids:
        try:
            found |= {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
        except psutil.NoSuchProcess:
            continue
    return found


def children_named(name: str, parents: Iterable[int]) -> set[int]:
    """The children of these processes that have `name` in their command line; a quick look."""
    known, found = set(parents), set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if name.encode() not in (folder / "cmdline").read_bytes():
                continue
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        if parent in known:
            found.add(int(folder.name))
    return found


def listeners(pids: Iterable[int]) -> set[Listener]:
    """What these processes listen on; a process that has ended meanwhile has nothing."""
    found = set()
    for pid in pids:
        try:
            process = psutil.Process(pid)
            name = " ".join(process.cmdline()).strip()
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    address = connection.laddr.ip.removeprefix(MAPPED)
                    everywhere = address in ("0.0.0.0", "::")
                    found.add(
                        Listener(name, EVERYWHERE if everywhere else address, connection.laddr.port)
                    )
        except psutil.NoSuchProcess:
            continue
    return found
