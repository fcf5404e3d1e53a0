"""The batcher: what waits is gathered, queues are bounded, a broken batch is tried apart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.batching import Batcher
from serving.engine import EngineRequest, Generation, OnDone
from serving.errors import EngineError, OverloadedError


class FakeEngine:
    """Echoes; breaks on batches that hold "poison"; waits while it is held."""

    adapters: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()

    def load(self, name: str, folder: Path) -> None:
        raise NotImplementedError(name, folder)

    def unload(self, name: str) -> None:
        raise NotImplementedError(name)

    def generate(self, requests: Sequence[EngineRequest], on_done: OnDone) -> None:
        texts = [str(request.messages[0]["content"]) for request in requests]
        self.batches.append(texts)
        self.free.wait(10)
        if "poison" in texts:
            raise RuntimeError("out of memory")
        for index, text in enumerate(texts):
            on_done(
                index,
                Generation(text=text, tokens_input=1, tokens_output=1, processing_ms=1.0),
            )


def ask(text: str) -> EngineRequest:
    return EngineRequest(messages=[{"role": "user", "content": text}])


async def test_what_waits_while_a_batch_runs_becomes_the_next_one() -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, max_batch_size=3, max_waiting=10)
    batcher.start()
    engine.free.clear()
    tasks = [asyncio.create_task(batcher.generate(ask("0")))]
    while not engine.batches:
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(batcher.generate(ask(str(n)))) for n in range(1, 6)]
    await asyncio.sleep(0.05)
    tasks[4].cancel()
    engine.free.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert engine.batches == [["0"], ["1", "2", "3"], ["5"]]
    assert isinstance(done[4], asyncio.CancelledError)
    first, second = done[0], done[1]
    assert not isinstance(first, BaseException)
    assert not isinstance(second, BaseException)
    assert second.generation.text == "1"
    assert second.queue_ms > first.queue_ms
    await batcher.stop()


async def test_a_full_queue_refuses_at_once() -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, max_batch_size=1, max_waiting=2)
    tasks = [asyncio.create_task(batcher.generate(ask(str(n)))) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await batcher.generate(ask("one too many"))
    batcher.start()
    await asyncio.gather(*tasks)
    await batcher.stop()


async def test_a_request_that_breaks_its_batch_fails_alone() -> None:
    batcher = Batcher(FakeEngine(), max_batch_size=4, max_waiting=10)
    tasks = [asyncio.create_task(batcher.generate(ask(t))) for t in ("a", "poison", "b")]
    await asyncio.sleep(0)
    batcher.start()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, EngineError) for outcome in outcomes] == [False, True, False]
    await batcher.stop()
