"""Who waits for replicas that are gone is answered by those of the other kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from serving.errors import GoneError
from serving.jobs import Delta, Job, Reply
from serving.replica import CHALLENGER, CHAMPION, ReplicaHandles
from serving.state import ReplicaState, Reporter, RouterState
from serving.waits import Waits
from tests.serving.conftest import Installation
from tests.serving.test_state import FakeKeeper, ManualClock

JOB = Job(
    messages=[{"role": "user", "content": "Hi"}], digest=None, max_new_tokens=4, temperature=0
)
REPLY = Reply(status="ok", text="yes")


class FakeHandle:
    """Of one deployment, as Serve gives it; without a replica, its requests wait."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers
        self.generate = SimpleNamespace(remote=lambda jobs: FakePieces(self._replies(jobs)))
        self.stream = SimpleNamespace(remote=lambda _: FakePieces(self._pieces()))

    def options(self, *, stream: bool) -> FakeHandle:
        assert stream
        return self

    async def _replies(self, jobs: Mapping[str, Job]) -> AsyncIterator[dict[str, Reply]]:
        if not self._answers:
            await asyncio.Event().wait()
        yield dict.fromkeys(jobs, REPLY)

    async def _pieces(self) -> AsyncIterator[Delta | Reply]:
        if not self._answers:
            await asyncio.Event().wait()
        yield Delta("yes")
        yield REPLY


class FakePieces:
    """An answer piece by piece, as Serve's handles give it."""

    def __init__(self, pieces: AsyncIterator[Any]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> FakePieces:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._pieces)

    def cancel(self) -> None:
        """Nobody wants it any more."""


class World:
    """A router, and a replica of each kind of which that of the champion is never heard of."""

    def __init__(self, installation: Installation) -> None:
        self.clock = ManualClock()
        database = installation.database
        self.replicas = {
            kind: ReplicaState(
                database,
                FakeKeeper(),
                Reporter(database, replica_id=kind, kind=kind, clock=self.clock.now),
            )
            for kind in (CHAMPION, CHALLENGER)
        }
        own = Reporter(database, replica_id="r", kind="router", clock=self.clock.now)
        self.state = RouterState(database, own, clock=self.clock.now)
        handles: Any = {CHAMPION: FakeHandle(answers=False), CHALLENGER: FakeHandle(answers=True)}
        self.models = ReplicaHandles(**handles, state=self.state)

    async def look(self, at: float, *reporting: str) -> None:
        """At this second these replicas report, and the router looks."""
        self.clock.seconds = at
        for kind in reporting:
            self.replicas[kind].refresh()
        await self.state.refresh()
        # What was given up is asked for elsewhere after a moment.
        await asyncio.sleep(0.1)

    async def ask(self, *, streamed: bool) -> Reply:
        """For an answer of the champion's."""
        if not streamed:
            return await self.models.generate(JOB, role="champion")
        *_, last = [piece async for piece in self.models.stream(JOB, role="champion")]
        assert isinstance(last, Reply)
        return last


@pytest.fixture
def world(installation: Installation) -> World:
    return World(installation)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_that_no_replica_took_is_taken_over_when_none_is_heard_of(
    world: World, streamed: bool
) -> None:
    await world.look(0.0, CHAMPION, CHALLENGER)
    asked = asyncio.create_task(world.ask(streamed=streamed))
    await world.look(5.0, CHALLENGER)
    assert not asked.done(), "the champion's silence may still be short"
    await world.look(7.0, CHALLENGER)
    assert await asyncio.wait_for(asked, 5) == REPLY


async def test_where_one_has_died_the_others_of_its_kind_have_a_moment_to_report(
    world: World,
) -> None:
    await world.look(0.0, CHAMPION, CHALLENGER)
    asked = asyncio.create_task(world.ask(streamed=False))
    await world.look(1.0, CHALLENGER)
    world.state.lose(CHAMPION)
    await world.look(3.0, CHALLENGER)
    assert not asked.done()
    await world.look(5.5, CHALLENGER)
    assert await asyncio.wait_for(asked, 5) == REPLY


async def test_a_wait_that_is_being_given_up_is_given_up_once() -> None:
    waits = Waits()

    async def wait() -> None:
        async with waits.on(CHAMPION):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    while not waiting.done():
        waits.end_all_but([])
        await asyncio.sleep(0)
    with pytest.raises(GoneError, match="champion"):
        await waiting


async def test_whoever_is_alone_is_waited_for(world: World) -> None:
    await world.look(0.0, CHAMPION)
    asked = asyncio.create_task(world.ask(streamed=False))
    await world.look(30.0)
    assert not asked.done()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert asked.cancelled()


async def test_an_answer_under_way_goes_on_while_its_replica_is_heard_of(world: World) -> None:
    await world.look(0.0, CHAMPION, CHALLENGER)
    asked = asyncio.create_task(world.ask(streamed=False))
    for seconds in (5.0, 10.0, 60.0):
        await world.look(seconds, CHAMPION, CHALLENGER)
        assert not asked.done()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
