"""The engine's thread: answers reach the event loop, and what nobody waits for is let go."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from serving.engine.batching import ThreadedEngine
from serving.engine.continuous import READ_CHARS, Limits, TorchEngine
from serving.jobs import Delta, Job, Reply


@pytest.fixture(scope="module")
def core(tiny_base: Path) -> TorchEngine:
    limits = Limits(max_running=2, max_waiting=2)
    return TorchEngine(str(tiny_base), limits=limits, rng=random.Random(0))


@pytest.fixture
async def engine(core: TorchEngine) -> AsyncIterator[ThreadedEngine]:
    engine = ThreadedEngine(core)
    engine.start()
    yield engine
    await engine.stop()


def ask(text: str, **changes: Any) -> Job:
    # At this temperature the end mark is as rare as any of 259 tokens.
    values = {"max_new_tokens": 8, "temperature": 9.0, "seed": 3} | changes
    return Job(messages=[{"role": "user", "content": text}], digest=None, **values)


async def until_idle(core: TorchEngine) -> None:
    while core.num_running or core.num_waiting:
        await asyncio.sleep(0.002)


async def test_a_stream_brings_what_generate_answers(engine: ThreadedEngine) -> None:
    whole = await engine.generate(ask("hello"))
    *deltas, reply = [event async for event in engine.stream(ask("hello"))]
    assert isinstance(reply, Reply)
    assert whole.ok
    assert (reply.text, reply.tokens_output) == (whole.text, whole.tokens_output)
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == whole.text
    assert 0 < reply.first_token_ms <= reply.processing_ms


async def test_what_nobody_waits_for_leaves_the_engine(
    engine: ThreadedEngine, core: TorchEngine
) -> None:
    long = ask("x", max_new_tokens=480)
    task = asyncio.create_task(engine.generate(long))
    async with aclosing(engine.stream(long)) as events:
        assert isinstance(await anext(events), Delta)
        while core.num_running < 2:
            await asyncio.sleep(0.005)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_idle(core)
    assert (await engine.generate(ask("next"))).ok


async def test_a_full_queue_refuses_at_once(core: TorchEngine) -> None:
    engine = ThreadedEngine(core)
    tasks = [asyncio.create_task(engine.generate(ask("a"))) for _ in range(2)]
    await asyncio.sleep(0)
    refused = await engine.generate(ask("one too many"))
    assert refused.status == "overloaded"
    assert not engine.alive
    engine.start()
    assert [reply.status for reply in await asyncio.gather(*tasks)] == ["ok", "ok"]
    await engine.stop()


async def test_stopping_fails_what_is_not_answered(core: TorchEngine) -> None:
    engine = ThreadedEngine(core)
    engine.start()
    async with aclosing(engine.stream(ask("x", max_new_tokens=480))) as events:
        await anext(events)
        await engine.stop()
        *_, last = [event async for event in events]
    assert isinstance(last, Reply)
    assert last.status == "failed"
    assert (await engine.generate(ask("late"))).status == "failed"
    assert core.num_running == 0
    assert not engine.alive


@pytest.mark.timeout(60)
async def test_where_nothing_works_any_more_all_jobs_fail_and_the_engine_says_so(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core = TorchEngine(str(tiny_base), limits=Limits(max_running=2, max_waiting=8))
    engine = ThreadedEngine(core)
    engine.start()
    assert (await engine.generate(ask("before"))).ok

    def fail(*_given: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    # After such a fault of the device everything raises that touches its memory.
    monkeypatch.setattr(core.model, "run", fail)
    monkeypatch.setattr(core._cache, "release", fail)
    replies = await asyncio.gather(*(engine.generate(ask(text)) for text in "abcd"))
    assert [reply.status for reply in replies] == ["failed"] * 4
    assert (await engine.generate(ask("later"))).status == "failed"
    while engine.alive:
        await asyncio.sleep(0.002)
    assert "its replica must be replaced" in caplog.text
    await engine.stop()


class FakeSlowEncoding:
    """Reads long chats no further than its first character until it is told to go on."""

    def __init__(self, core: TorchEngine) -> None:
        self._encode = core.model.encode
        self.begun: list[str] = []
        self.go_on = threading.Event()

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        text = str(messages[0]["content"])
        if len(text) > READ_CHARS:
            self.begun.append(text[0])
            self.go_on.wait()
        return self._encode(messages)


@pytest.fixture
def slow(core: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlowEncoding]:
    slow = FakeSlowEncoding(core)
    monkeypatch.setattr(core.model, "encode", slow)
    yield slow
    slow.go_on.set()


async def until_begun(slow: FakeSlowEncoding) -> None:
    while not slow.begun:
        await asyncio.sleep(0.002)


@pytest.mark.timeout(60)
async def test_others_are_answered_while_a_long_prompt_is_read(
    engine: ThreadedEngine, core: TorchEngine, slow: FakeSlowEncoding
) -> None:
    first = asyncio.create_task(engine.generate(ask("a" * (READ_CHARS + 1))))
    await until_begun(slow)
    assert (await engine.generate(ask("short"))).ok
    second = asyncio.create_task(engine.generate(ask("b" * (READ_CHARS + 1))))
    await asyncio.sleep(0)
    # Prompts that are being read fill the queue as others do.
    assert (await engine.generate(ask("one too many"))).status == "overloaded"
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    slow.go_on.set()
    assert (await first).status == "too_long"
    await until_idle(core)
    assert slow.begun == ["a"]


@pytest.mark.timeout(60)
async def test_stopping_fails_what_is_being_read(
    engine: ThreadedEngine, slow: FakeSlowEncoding
) -> None:
    task = asyncio.create_task(engine.generate(ask("a" * (READ_CHARS + 1))))
    await until_begun(slow)
    await engine.stop()
    assert (await task).status == "failed"
