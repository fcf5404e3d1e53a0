"""Jobs of one turn travel together, and each is still its caller's own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.calls import BROKEN_OFF, FAULT, MAX_JOBS, Calls, JobsUnderWay
from serving.jobs import Job, Reply

asker: ContextVar[str] = ContextVar("asker", default="nobody")


def job(text: str) -> Job:
    messages = [{"role": "user", "content": text}]
    return Job(messages=messages, digest=None, max_new_tokens=4, temperature=0)


class FakeModel:
    """Answers when it is let; knows what it works on."""

    def __init__(self) -> None:
        self.begun: dict[str, asyncio.Future[Reply]] = {}
        self.ended: list[str] = []

    async def generate(self, job: Job) -> Reply:
        text = job.messages[0]["content"]
        self.begun[text] = asyncio.get_running_loop().create_future()
        try:
            return await self.begun[text]
        except asyncio.CancelledError:
            self.ended.append(text)
            raise

    def finish(self, *texts: str) -> None:
        for text in texts:
            if not self.begun[text].done():
                self.begun[text].set_result(Reply(status="ok", text=text.upper()))


class FakeEndedError(Exception):
    """What Serve raises in whoever reads a call that was cancelled."""


class FakePieces:
    """The replies of one call, as Serve's handles give them."""

    def __init__(self, replies: AsyncIterator[Mapping[str, Reply]]) -> None:
        self._replies = replies
        self._next: asyncio.Future[Mapping[str, Reply]] | None = None
        self._is_cancelled = False

    def __aiter__(self) -> FakePieces:
        return self

    async def __anext__(self) -> Mapping[str, Reply]:
        self._next = asyncio.ensure_future(anext(self._replies))
        try:
            return await self._next
        except asyncio.CancelledError:
            if self._is_cancelled:
                raise FakeEndedError from None
            raise
        finally:
            self._next = None

    def cancel(self) -> None:
        assert self._next is not None
        self._is_cancelled = True
        self._next.cancel()


class FakeLine:
    """A replica in this process; notes what passes."""

    def __init__(self, *, num_replicas: int = 1, max_jobs: int = 1_000) -> None:
        self.num_replicas = num_replicas
        self.model = FakeModel()
        self.replica = JobsUnderWay(self.model.generate, max_jobs=max_jobs)
        self.calls: list[list[str]] = []
        self.told: list[str] = []
        self.asker = ""
        self.fault: Exception | None = None
        self.is_cut = False
        """Whether no replica can be told anything."""
        self.open = asyncio.Event()
        self.open.set()

    def generate(self, jobs: Mapping[str, Job]) -> FakePieces:
        self.calls.append([job.messages[0]["content"] for job in jobs.values()])
        self.asker = asker.get()
        return FakePieces(self._replies(jobs))

    async def _replies(self, jobs: Mapping[str, Job]) -> AsyncIterator[Mapping[str, Reply]]:
        """They are sent once the line is open."""
        await self.open.wait()
        async with aclosing(self.replica.answer(dict(jobs))) as replies:
            async for some in replies:
                yield some
                if self.fault:
                    raise self.fault

    async def abandon(self, names: Sequence[str]) -> None:
        if self.is_cut:
            raise ConnectionError("no replica")
        self.told += names
        self.replica.abandon(names)


@pytest.fixture
async def line() -> FakeLine:
    return FakeLine()


def ask(calls: Calls, *texts: str) -> list[asyncio.Task[Reply]]:
    return [asyncio.create_task(calls.generate(job(text))) for text in texts]


async def settle() -> None:
    """Let everything go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def leave(*tasks: asyncio.Task[Reply]) -> None:
    for task in tasks:
        task.cancel()
    await settle()
    assert all(task.cancelled() for task in tasks)


async def test_who_asks_in_one_turn_shares_a_call(line: FakeLine) -> None:
    calls = Calls(line)
    first = ask(calls, "a", "b")
    await settle()
    later = ask(calls, "c")
    await settle()
    assert line.calls == [["a", "b"], ["c"]]
    line.model.finish("a", "b", "c")
    replies = await asyncio.gather(*first, *later)
    assert [reply.text for reply in replies] == ["A", "B", "C"]


async def test_a_burst_is_spread_over_calls(line: FakeLine) -> None:
    texts = [str(number) for number in range(2 * MAX_JOBS + 1)]
    tasks = ask(Calls(line), *texts)
    await settle()
    assert [len(call) for call in line.calls] == [MAX_JOBS, MAX_JOBS, 1]
    line.model.finish(*texts)
    assert [reply.text for reply in await asyncio.gather(*tasks)] == texts


async def test_a_reply_waits_for_no_other(line: FakeLine) -> None:
    quick, slow = ask(Calls(line), "quick", "slow")
    await settle()
    line.model.finish("quick")
    assert (await quick).text == "QUICK"
    assert not slow.done()
    line.model.finish("slow")
    assert (await slow).text == "SLOW"


async def test_who_leaves_ends_his_job_alone(line: FakeLine) -> None:
    gone, stays = ask(Calls(line), "gone", "stays")
    await settle()
    await leave(gone)
    assert line.model.ended == ["gone"]
    line.model.finish("stays")
    assert (await stays).text == "STAYS"


async def test_when_all_have_left_the_call_ends_and_nobody_is_told(line: FakeLine) -> None:
    tasks = ask(Calls(line), "a", "b", "c")
    await settle()
    line.model.finish("c")
    await settle()
    await leave(*tasks[:2])
    assert sorted(line.model.ended) == ["a", "b"]
    assert line.told == []


async def test_who_leaves_before_the_turn_ends_is_not_sent(line: FakeLine) -> None:
    calls = Calls(line)
    gone, stays = ask(calls, "gone", "stays")
    asyncio.get_running_loop().call_soon(gone.cancel)
    await settle()
    assert line.calls == [["stays"]]
    await leave(stays)
    (alone,) = ask(calls, "alone")
    await asyncio.sleep(0)
    await leave(alone)
    assert line.calls == [["stays"]]


async def test_who_leaves_before_a_replica_has_the_call_is_not_sent(line: FakeLine) -> None:
    line.open.clear()
    gone, stays = ask(Calls(line), "gone", "stays")
    await settle()
    await leave(gone)
    line.open.set()
    await settle()
    assert list(line.model.begun) == ["stays"]
    line.model.finish("stays")
    assert (await stays).ok


async def test_word_that_overtakes_the_job_is_kept_for_it() -> None:
    model = FakeModel()
    replica = JobsUnderWay(model.generate, max_jobs=9)
    replica.abandon(["one"])
    replies = replica.answer({"one": job("gone"), "two": job("stays")})
    first = asyncio.ensure_future(anext(replies))
    await settle()
    assert list(model.begun) == ["stays"]
    model.finish("stays")
    assert list(await first) == ["two"]


async def test_a_burst_is_spread_over_the_replicas() -> None:
    line = FakeLine(num_replicas=3)
    tasks = ask(Calls(line), *"abcde")
    await settle()
    assert [len(call) for call in line.calls] == [2, 2, 1]
    await leave(*tasks)


async def test_a_replica_refuses_what_it_has_no_room_for() -> None:
    line = FakeLine(max_jobs=2)
    calls = Calls(line)
    tasks = ask(calls, *"abc")
    await settle()
    assert [task.done() and task.result().status for task in tasks] == [False, False, "overloaded"]
    (another,) = ask(calls, "d")
    assert (await another).status == "overloaded"
    line.model.finish("a", "b")
    assert all([(await task).ok for task in tasks[:2]])
    (later,) = ask(calls, "e")
    await settle()
    line.model.finish("e")
    assert (await later).ok


async def test_what_breaks_a_call_is_told_to_all_who_still_wait(line: FakeLine) -> None:
    done, gone, *waiting = ask(Calls(line), "done", "gone", "a", "b")
    await settle()
    await leave(gone)
    line.fault = ConnectionError("the replica died")
    line.model.finish("done")
    assert (await done).ok
    for task in waiting:
        with pytest.raises(ConnectionError, match="the replica died"):
            await task


async def test_a_call_that_somebody_else_ends_fails_its_jobs(line: FakeLine) -> None:
    calls = Calls(line)
    tasks = ask(calls, "a", "b")
    await settle()
    for call in calls._tasks:
        call.cancel()
    assert await asyncio.gather(*tasks) == [BROKEN_OFF, BROKEN_OFF]


async def test_a_bug_in_one_job_is_not_the_others(
    line: FakeLine, caplog: pytest.LogCaptureFixture
) -> None:
    odd, other = ask(Calls(line), "odd", "other")
    await settle()
    line.model.begun["odd"].set_exception(ZeroDivisionError("a bug"))
    line.model.finish("other")
    assert await odd == FAULT
    assert (await other).ok
    assert "a bug" in caplog.text


async def test_replicas_that_cannot_be_told_disturb_nobody(
    line: FakeLine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    line.is_cut = True
    gone, stays = ask(Calls(line), "gone", "stays")
    await settle()
    await leave(gone)
    assert "1 abandoned jobs could not be ended: no replica" in caplog.text
    line.model.finish("stays")
    assert (await stays).ok


async def test_a_call_is_of_nobodys_context(line: FakeLine) -> None:
    asker.set("who came first")
    (task,) = ask(Calls(line), "a")
    await settle()
    assert line.asker == "nobody"
    await leave(task)


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "finish", "leave", "turn"]), st.integers(0, 30)),
    max_size=60,
)


@given(STEPS)
def test_whoever_stays_gets_his_own_answer_and_no_other_is_worked_on(
    steps: list[tuple[str, int]],
) -> None:
    asyncio.run(live_through(steps))


async def live_through(steps: list[tuple[str, int]]) -> None:
    line = FakeLine()
    calls = Calls(line)
    tasks: dict[str, asyncio.Task[Reply]] = {}
    for step, number in steps:
        text = f"t{number}"
        if step == "turn":
            await asyncio.sleep(0)
        elif step == "ask" and text not in tasks:
            (tasks[text],) = ask(calls, text)
        elif step == "finish" and text in line.model.begun:
            line.model.finish(text)
        elif step == "leave" and text in tasks:
            tasks[text].cancel()
    await settle()
    wanted = {text for text, task in tasks.items() if not task.done()}
    assert {text for text, one in line.model.begun.items() if not one.done()} == wanted
    line.model.finish(*wanted)
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    for text, task in tasks.items():
        assert task.cancelled() or task.result().text == text.upper()
    assert all(tasks[text].result().ok for text in wanted)
    await settle()
    assert not calls._tasks
    assert not line.replica._tasks


async def test_nothing_of_a_call_waits_for_the_garbage_collector(line: FakeLine) -> None:
    def jobs() -> set[int]:
        return {id(one) for one in gc.get_objects() if type(one) is Job}

    calls, before = Calls(line), jobs()
    gc.disable()
    try:
        tasks = ask(calls, "a", "b")
        await settle()
        line.model.finish("a", "b")
        await asyncio.gather(*tasks)
        tasks.clear()
        line.model.begun.clear()
        await settle()
        assert jobs() <= before
    finally:
        gc.enable()
