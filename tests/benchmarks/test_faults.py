"""The fault benchmark counts right, and its client sees what a server does to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.bench_faults import Run, tally
from benchmarks.bench_router import figures, speed
from benchmarks.http_load import Load, Outcome
from benchmarks.serving_process import System
from registry import deployment, interactions
from registry.clock import utc_now
from registry.crypto import Keyring
from registry.db import open_database
from registry.interactions import Interaction
from registry.settings import Settings


def test_missing_double_and_broken_requests_are_told_apart(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'test.db'}")

    def row(row_id: str, session_id: str, error: str | None = None) -> Interaction:
        return Interaction(
            id=row_id,
            created_at=utc_now(),
            input_text="a",
            structured_prompt="b",
            model_output="c",
            session_id=session_id,
            error=error,
        )

    with database.write() as session:
        deployment.add_workload(session, "default", now=utc_now())
        rows = [row("i1", "a"), row("i2", "b"), row("i3", "b"), row("i4", "a", error="x")]
        interactions.log(session, rows, keyring=Keyring(b"k" * 32))
    run = Run(System(Settings(home=tmp_path)), database, router_kills=[100.0])
    run.phases = [("one", 0.0), ("two", 50.0)]
    outcomes = [
        Outcome("a", 10.0, 0.5, 200, "i1"),
        Outcome("b", 60.0, 1.5, 200, "i2"),
        Outcome("c", 61.0, 0.1, 200, "lost"),
        Outcome("d", 62.0, 0.1, 503),
        Outcome("e", 99.0, 1.2, 0),
        Outcome("f", 20.0, 0.1, 500),
    ]
    found = tally(outcomes, run)
    database.close()
    assert (found.sent, found.answered, found.refused) == (6, 3, 1)
    assert (found.cut, found.failed) == (1, 1)
    assert (found.missing, found.double) == (1, 1)
    assert found.waits == {"one": 0.5, "two": 1.5}


async def test_the_client_counts_what_the_server_does() -> None:
    replies = [
        b'HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{"interaction_id": "i1"}',
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"",
        b"HTTP/1.1 500 Oh\r\n\r\noh",
    ]
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while replies:
                asked.append(await reader.readuntil(b"}"))
                reply = replies.pop(0)
                writer.write(reply)
                await writer.drain()
                if b"Content-Length: 24" not in reply:
                    return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    load = Load(server.sockets[0].getsockname()[1], "/x", ["Authorization: y"], pause_s=0)
    task = asyncio.create_task(load.connection(0))
    async with asyncio.timeout(10):
        while len(load.outcomes) < 4:
            await asyncio.sleep(0.01)
    load.stopped = True
    await task
    server.close()
    await server.wait_closed()
    assert [outcome.status for outcome in load.outcomes[:4]] == [200, 503, 0, 500]
    assert load.outcomes[0].interaction_id == "i1"
    assert len({outcome.id for outcome in load.outcomes}) == len(load.outcomes)
    assert asked[0].startswith(b"POST /x HTTP/1.1\r\n")
    assert b"Authorization: y\r\n" in asked[0]


def test_speed_leaves_the_warm_up_out() -> None:
    outcomes = [Outcome(str(n), n / 10, 0.1 if n >= 20 else 9.0, 200, "i") for n in range(60)]
    found = speed(outcomes, 0.12)
    assert round(found.per_second) == 10
    assert (round(found.p50_ms), round(found.p99_ms)) == (100, 100)
    assert found.processor_ms == 2
    rates = [
        figure.ratio for figure in figures({("router", 1): [found], ("bare ingress", 1): [found]})
    ]
    assert rates[0] == 1.0
