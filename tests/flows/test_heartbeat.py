"""The heartbeat of a training run."""

from __future__ import annotations

import time

from flows.context import Context
from flows.heartbeat import heartbeat
from registry import runs
from tests.flows.conftest import FakeClock


def test_it_beats_while_the_block_runs_and_stops_with_it(
    context: Context, clock: FakeClock
) -> None:
    with context.database.write() as session:
        started = runs.start(session, run_id="r", workload="default", trigger="x", now=clock())
    moved = clock.move(minutes=1)
    with heartbeat(context, "r", interval_s=0.02):
        deadline = time.monotonic() + 10
        while _seen(context) == started.started_at and time.monotonic() < deadline:
            time.sleep(0.02)
    assert _seen(context) == moved
    clock.move(minutes=1)
    time.sleep(0.1)
    assert _seen(context) == moved


def _seen(context: Context) -> object:
    with context.database.read() as session:
        return runs.get(session, "r").heartbeat_at
