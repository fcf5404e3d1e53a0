"""Every workload has its turn, and all of them have one end."""

from __future__ import annotations

import pytest

from flows.context import Context
from flows.each_workload import End, chosen, in_turn
from flows.errors import RefusedError, SomeFailedError
from registry import deployment
from registry.errors import BusyError, DatabaseError
from tests.flows.conftest import FakeClock


def test_the_default_workload_is_first_and_the_others_come_in_their_order(
    context: Context, clock: FakeClock
) -> None:
    clock.move(hours=-1)  # another machine's clock, or a restored backup
    with context.database.write() as session:
        for name in ("support", "mail"):
            deployment.add_workload(session, name, now=clock.move(seconds=1))
    assert chosen(context, None) == ["default", "support", "mail"]
    assert chosen(context, "mail") == ["mail"]


def test_what_came_of_a_single_workload_is_left_as_it_is() -> None:
    assert in_turn(["a"], lambda _: End("done", "Succeeded")) == End("done", "Succeeded")

    def busy(_: str) -> End:
        raise BusyError("already training")

    assert in_turn(["a"], busy) == End("already training", "Refused")

    def broken(_: str) -> End:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        in_turn(["a"], broken)


def test_several_that_end_alike_give_the_end_its_name() -> None:
    assert in_turn(["a", "b"], lambda name: End(f"{name} it is", "Rejected")) == End(
        "a: a it is\nb: b it is", "Rejected"
    )


def test_several_that_end_differently_are_completed() -> None:
    ends = {"a": End("better", "Succeeded"), "b": End("worse", "Rejected")}
    assert in_turn(["a", "b"], ends.__getitem__) == End("a: better\nb: worse", "Completed")


@pytest.mark.parametrize("reason", [BusyError("under way"), RefusedError("under way")])
def test_what_cannot_be_done_now_is_told_and_fails_nothing(reason: Exception) -> None:
    def turn(name: str) -> End:
        if name == "a":
            raise reason
        return End("done", "Succeeded")

    assert in_turn(["a", "b"], turn) == End("a: under way\nb: done", "Completed")


def test_one_that_fails_costs_no_other_its_turn_and_is_named_at_the_end() -> None:
    had_turn: list[str] = []

    def turn(name: str) -> End:
        had_turn.append(name)
        if name == "b":
            raise DatabaseError("no table 'versions'")
        if name == "c":
            raise KeyError
        return End("done")

    with pytest.raises(SomeFailedError) as raised:
        in_turn(["a", "b", "c", "d"], turn)
    assert had_turn == ["a", "b", "c", "d"]
    assert str(raised.value) == (
        "2 of 4 workloads failed; workload 'b': no table 'versions'; workload 'c': KeyError"
    )
    assert isinstance(raised.value.__cause__, DatabaseError)


def test_who_stops_the_flow_stops_it_for_all() -> None:
    had_turn: list[str] = []

    def turn(name: str) -> End:
        had_turn.append(name)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_turn(["a", "b"], turn)
    assert had_turn == ["a"]
