"""A client in a process of its own: python -m benchmarks.http_load PORT OUT [--connections N] …

Plain sockets, one request at a time on each of N kept connections. Every request carries an id
of its own as `session_id`. Runs for `--seconds`, or until its standard input closes, and then
writes what became of every request to OUT, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PAUSE_AFTER_FAILURE_S = 0.05
CONNECT_S = 5.0
ANSWER_S = 90.0


@dataclass(frozen=True)
class Outcome:
    """What became of one request. Status 0: the connection broke."""

    id: str
    at: float
    """Moment of the machine's clock when it was sent, in seconds."""
    seconds: float
    status: int
    interaction_id: str | None = None


class Load:
    """Connections that ask one thing after the other."""

    def __init__(self, port: int, path: str, headers: list[str], *, pause_s: float) -> None:
        self._port = port
        self._path = path
        self._headers = "".join(f"{line}\r\n" for line in headers)
        self._pause_s = pause_s
        self.stopped = False
        self.outcomes: list[Outcome] = []

    async def connection(self, number: int) -> None:
        """One connection; it is opened again when it breaks."""
        count = 0
        reader, writer = None, None
        while not self.stopped:
            request_id = f"load-{number}-{count}"
            count += 1
            at, started = time.time(), time.perf_counter()
            status, body = 0, b""
            try:
                if reader is None or writer is None:
                    async with asyncio.timeout(CONNECT_S):
                        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(self._request(request_id))
                async with asyncio.timeout(ANSWER_S):
                    status, body, is_kept = await _answer(reader)
                if not is_kept:
                    writer.close()
                    reader = writer = None
            except (OSError, EOFError, ValueError, TimeoutError):
                if writer is not None:
                    writer.close()
                reader = writer = None
            seconds = time.perf_counter() - started
            interaction = json.loads(body).get("interaction_id") if status == 200 else None
            self.outcomes.append(Outcome(request_id, at, seconds, status, interaction))
            await asyncio.sleep(self._pause_s if status == 200 else PAUSE_AFTER_FAILURE_S)

    def _request(self, request_id: str) -> bytes:
        body = json.dumps(
            {"text": "Write an email", "session_id": request_id, "max_tokens": 2}
        ).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection may be used again."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if "content-length" in fields:
        body = await reader.readexactly(int(fields["content-length"]))
        return status, body, fields.get("connection") != "close"
    return status, await reader.read(), False


async def run(load: Load, *, connections: int, seconds: float | None) -> None:
    """Ask until the time is over, or the standard input closes."""
    tasks = [asyncio.create_task(load.connection(number)) for number in range(connections)]
    if seconds is None:
        await asyncio.to_thread(sys.stdin.read)
    else:
        await asyncio.sleep(seconds)
    load.stopped = True
    await asyncio.gather(*tasks)


def read_outcomes(path: Path) -> list[Outcome]:
    """What a load has written."""
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    return [Outcome(**values) for values in found]


def main(arguments: list[str] | None = None) -> None:
    """Ask, and write down what became of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--path", default="/api/generate")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests")
    parser.add_argument("--header", action="append", default=[], help="'Name: value'")
    options = parser.parse_args(arguments)
    load = Load(options.port, options.path, options.header, pause_s=options.pause)
    asyncio.run(run(load, connections=options.connections, seconds=options.seconds))
    options.out.write_text(json.dumps([asdict(outcome) for outcome in load.outcomes]), "utf-8")


if __name__ == "__main__":
    main()
