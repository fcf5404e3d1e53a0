"""The shared windows: exact, shared between processes, and forgotten when they end."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from limits.limits import RateLimitItemPerMinute

from serving.access.window_store import (
    BUSY_TIMEOUT_S,
    PURGE_EVERY,
    WindowStore,
    forget_ended,
)

ROOT = Path(__file__).parents[3]


@dataclass
class FakeClock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def store_in(folder: Path, clock: FakeClock | None = None) -> Iterator[WindowStore]:
    store = WindowStore(folder, clock=clock or FakeClock())
    yield store
    store.close()


def stored(folder: Path, table: str) -> int:
    (path,) = folder.glob("limits-*.db")
    connection = sqlite3.connect(path)
    count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return count


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.differing_executors])
@given(
    limit=st.integers(1, 5),
    steps=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 3)), min_size=1, max_size=60),
)
async def test_no_window_ever_holds_more_than_the_limit_and_none_less_than_it_may(
    limit: int, steps: list[tuple[float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expiry = 60
    clock, accepted = FakeClock(), list[float]()
    folder = tmp_path_factory.mktemp("windows")
    with store_in(folder, clock) as one, store_in(folder, clock) as two:
        for number, (pause, amount) in enumerate(steps):
            clock.now += pause
            in_window = [at for at in accepted if at > clock.now - expiry]
            store = (one, two)[number % 2]
            took = await store.acquire_entry("k", limit, expiry, amount)
            assert took == (len(in_window) + amount <= limit)
            accepted += [clock.now] * (amount if took else 0)
            in_window = [at for at in accepted if at > clock.now - expiry]
            assert len(in_window) <= limit
            window = await store.get_moving_window("k", limit, expiry)
            assert window == (min(in_window, default=clock.now), len(in_window))


async def test_the_librarys_strategy_works_on_it(tmp_path: Path) -> None:
    clock, rate = FakeClock(), RateLimitItemPerMinute(2)
    with store_in(tmp_path, clock) as store:
        limiter = MovingWindowRateLimiter(store)
        assert [await limiter.hit(rate, "a") for _ in range(3)] == [True, True, False]
        assert not await limiter.test(rate, "a")
        assert await limiter.hit(rate, "b")
        assert await limiter.get_window_stats(rate, "a") == (clock.now + 60, 0)
        await limiter.clear(rate, "a")
        assert await limiter.hit(rate, "a")
        assert await store.check()
        assert await store.reset() == 2
        assert (stored(tmp_path, "windows"), stored(tmp_path, "hits")) == (0, 0)
        with pytest.raises(NotImplementedError):
            await store.incr("a", 60)


async def test_only_windows_that_have_ended_are_forgotten(tmp_path: Path) -> None:
    clock = FakeClock()
    with store_in(tmp_path, clock) as store:
        await store.acquire_entry("short", 2, 60)
        await store.acquire_entry("long", 2, 3600)
        assert forget_ended(tmp_path, now=clock.now + 59) == 0
        assert forget_ended(tmp_path, now=clock.now + 60) == 1
        assert (stored(tmp_path, "windows"), stored(tmp_path, "hits")) == (1, 1)


HAMMER = """
import asyncio, sys
from pathlib import Path
from serving.access import window_store
from serving.access.window_store import WindowStore

window_store.BUSY_TIMEOUT_S = 20  # counting is looked at, not haste

async def main():
    store = WindowStore(Path(sys.argv[1]))
    print(sum([await store.acquire_entry("k", 100, 3600) for _ in range(80)]))
    store.close()

asyncio.run(main())
"""


def test_processes_share_one_limit(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, tmp_path], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        for _ in range(3)
    ]
    assert sum(int(process.communicate()[0]) for process in processes) == 100


async def test_a_clock_that_was_set_back_shuts_nobody_out(tmp_path: Path) -> None:
    clock = FakeClock(10_000)
    with store_in(tmp_path, clock) as store:
        assert await store.acquire_entry("k", 1, 60)
        clock.now = 5_000
        assert await store.acquire_entry("k", 1, 60)
        assert not await store.acquire_entry("k", 1, 60)


async def test_windows_that_have_ended_are_removed(tmp_path: Path) -> None:
    clock = FakeClock()
    with store_in(tmp_path, clock) as store:
        for number in range(10 * PURGE_EVERY):
            clock.now += 1
            assert await store.acquire_entry(f"user {number}", 60, 60)
        assert stored(tmp_path, "windows") <= 60 + PURGE_EVERY
        assert stored(tmp_path, "hits") == stored(tmp_path, "windows")


async def test_a_file_of_an_earlier_boot_is_not_opened_again(tmp_path: Path) -> None:
    damaged = tmp_path / "limits-00000000-0000-0000-0000-000000000000.db"
    damaged.write_bytes(b"garbage")
    with store_in(tmp_path) as store:
        assert await store.acquire_entry("k", 1, 60)
    assert not damaged.exists()


async def test_a_file_held_locked_is_a_storage_error_soon(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        assert await store.acquire_entry("k", 2, 60)
        (path,) = tmp_path.glob("limits-*.db")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            await store.acquire_entry("k", 2, 60)
        other.execute("ROLLBACK")
        other.close()
        assert await store.acquire_entry("k", 2, 60)
    assert BUSY_TIMEOUT_S < 1
