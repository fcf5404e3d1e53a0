"""The scheduler: first come, first served, bounded, and prompts in pieces."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine.scheduler import Scheduler
from serving.errors import OverloadedError


@dataclass(eq=False)
class Asked:
    """A request that only counts its tokens."""

    unfed: int


def scheduler(**limits: int) -> Scheduler[Asked]:
    values = {"max_running": 4, "max_waiting": 100, "prompt_tokens": 10} | limits
    return Scheduler(**values)


def test_a_full_queue_refuses() -> None:
    schedule = scheduler(max_waiting=2)
    for _ in range(2):
        schedule.enqueue(Asked(1))
    with pytest.raises(OverloadedError, match="2 requests"):
        schedule.enqueue(Asked(1))


def test_nobody_passes_a_request_that_waits_for_room() -> None:
    schedule = scheduler()
    large, small = Asked(50), Asked(1)
    for request in (large, small):
        schedule.enqueue(request)
    schedule.admit(lambda request: request is small)
    assert schedule.running == []
    schedule.admit(lambda _: True)
    assert schedule.running == [large, small]


def test_those_who_leave_make_room_wherever_they_stand() -> None:
    schedule = scheduler(max_running=2)
    requests = [Asked(1) for _ in range(4)]
    for request in requests:
        schedule.enqueue(request)
    schedule.admit(lambda _: True)
    schedule.remove([requests[0], requests[3]])
    schedule.admit(lambda _: True)
    assert schedule.running == requests[1:3]
    assert not schedule.waiting


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 20))
def test_all_that_write_are_fed_and_prompts_within_the_bound(
    lengths: list[int], bound: int
) -> None:
    schedule = scheduler(max_running=8, prompt_tokens=bound)
    for length in lengths:
        schedule.enqueue(Asked(length))
    schedule.admit(lambda _: True)
    plan = schedule.plan()
    fed = {id(request): count for request, count in plan}
    assert all(1 <= count <= request.unfed for request, count in plan)
    assert all(fed[id(request)] == 1 for request in schedule.running if request.unfed == 1)
    prompts = [(request, count) for request, count in plan if request.unfed > 1]
    assert sum(count for _, count in prompts) <= bound
    # Every step moves on, and at most one prompt is left in the middle.
    assert plan
    assert sum(count < request.unfed for request, count in prompts) <= 1
