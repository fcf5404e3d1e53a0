"""Requests counted ahead: few look-ups for busy callers, exact counts for all others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from serving.access.leases import LEASE_S, SHARE, Leases
from tests.serving.access.test_window_store import FakeClock

ANN = ("user", "ann")


@dataclass
class FakeWindow:
    """A shared window that never ends."""

    limit: int
    taken: int = 0
    asked: list[int] = field(default_factory=list)

    async def take(self, amount: int) -> bool:
        self.asked.append(amount)
        if self.taken + amount > self.limit:
            return False
        self.taken += amount
        return True


async def test_a_small_limit_is_counted_request_by_request() -> None:
    window, leases = FakeWindow(2 * SHARE - 1), Leases(FakeClock())
    assert all([await leases.use(ANN, window.limit, window.take) for _ in range(window.limit)])
    assert not await leases.use(ANN, window.limit, window.take)
    assert set(window.asked) == {1}


async def test_a_busy_callers_requests_are_taken_ahead_and_all_of_them_can_be_used() -> None:
    window, leases = FakeWindow(1_000), Leases(FakeClock())
    assert all([await leases.use(ANN, window.limit, window.take) for _ in range(900)])
    assert max(window.asked) == window.limit // SHARE
    assert len(window.asked) < 100
    assert sum([await leases.use(ANN, window.limit, window.take) for _ in range(300)]) == 100


async def test_many_requests_at_once_take_no_more_than_one_part_of_the_limit_ahead() -> None:
    window, leases = FakeWindow(6_000), Leases(FakeClock())

    async def take_slowly(amount: int) -> bool:
        await asyncio.sleep(0)
        return await window.take(amount)

    num_asked = 0
    for _ in range(10):
        found = await asyncio.gather(
            *(leases.use(ANN, window.limit, take_slowly) for _ in range(64))
        )
        assert all(found)
        num_asked += len(found)
        assert num_asked <= window.taken <= num_asked + window.limit // SHARE


async def test_who_asks_now_and_then_loses_nothing() -> None:
    clock = FakeClock()
    window, leases = FakeWindow(1_000), Leases(clock)
    for _ in range(50):
        assert await leases.use(ANN, window.limit, window.take)
        clock.now += 2 * LEASE_S
    assert window.taken == 50


@given(
    st.lists(st.tuples(st.integers(0, 1), st.floats(0, 2)), max_size=300),
    st.integers(1, 1_000),
)
async def test_the_routers_together_never_let_more_through_than_was_taken(
    requests: list[tuple[int, float]], limit: int
) -> None:
    clock, window = FakeClock(), FakeWindow(limit)
    routers = [Leases(clock), Leases(clock)]
    accepted = 0
    for router, pause in requests:
        clock.now += pause
        accepted += await routers[router].use(ANN, limit, window.take)
    assert accepted <= window.taken <= limit
