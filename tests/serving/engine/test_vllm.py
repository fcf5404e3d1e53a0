"""The vLLM engine, against a server that speaks vLLM's interface over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from registry.errors import SettingsError
from registry.settings import load_settings
from serving.engine.vllm import VllmEngine
from serving.errors import AdapterError
from serving.jobs import Delta, Job, Reply
from tests.support.fake_vllm import BASE, FakeVllm, fake_vllm


@pytest.fixture
def server() -> Iterator[FakeVllm]:
    with fake_vllm() as server:
        yield server


@pytest.fixture
async def engine(server: FakeVllm) -> AsyncIterator[VllmEngine]:
    engine = VllmEngine(server.url, base=BASE)
    engine.start()
    yield engine
    await engine.stop()


def ask(text: str, digest: str | None = None, **changes: Any) -> Job:
    values = {"max_new_tokens": 9, "temperature": 0.5} | changes
    return Job(messages=[{"role": "user", "content": text}], digest=digest, **values)


async def test_answers_come_whole_and_in_pieces(engine: VllmEngine, server: FakeVllm) -> None:
    job = ask("hello world", top_k=5, seed=7, stop=("x",), top_logprobs=1)
    whole = await engine.generate(job)
    assert (whole.status, whole.text, whole.finish) == ("ok", "base: hello world ", "stop")
    assert (whole.tokens_input, whole.tokens_output) == (3, 3)
    assert [entry.token for entry in whole.logprobs] == ["base:", "hello", "world"]
    *deltas, reply = [event async for event in engine.stream(job)]
    assert isinstance(reply, Reply)
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == reply.text
    assert len(deltas) == 3
    asked = server.asked[0]
    assert (asked["model"], asked["top_k"], asked["seed"], asked["stop"]) == (BASE, 5, 7, ["x"])
    cut = await engine.generate(ask("one two three", max_new_tokens=2))
    assert (cut.finish, cut.tokens_output) == ("length", 2)


async def test_adapters_are_loaded_under_their_digest_and_let_go(
    engine: VllmEngine, server: FakeVllm, adapters: dict[str, Path]
) -> None:
    engine.load("abc", adapters["one"])
    assert (await engine.generate(ask("hi", "abc"))).text == "abc: hi "
    # Another replica of the same server.
    other = VllmEngine(server.url, base=BASE)
    other.load("abc", adapters["one"])
    assert other.adapters == engine.adapters == {"abc"}
    for replica in (engine, other):
        replica.unload("abc")
    assert server.adapters == {}
    assert engine.adapters == frozenset()
    assert (await engine.generate(ask("hi", "abc"))).status == "not_loaded"


def test_an_adapter_that_the_server_does_not_take_is_refused(
    server: FakeVllm, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match="No adapter found"):
        VllmEngine(server.url, base=BASE).load("abc", tmp_path)


async def test_the_trace_context_is_passed_on(engine: VllmEngine, server: FakeVllm) -> None:
    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await engine.generate(ask("hi", traceparent=context))
    await engine.generate(ask("hi"))
    assert server.traced == [context, None]


async def test_refusals_are_told_by_their_kind(engine: VllmEngine, server: FakeVllm) -> None:
    assert (await engine.generate(ask("word " * 60))).status == "too_long"
    assert (await engine.generate(ask("x", top_p=0.0))).ok
    server.refuses = "After the optional system message, roles must alternate"
    unfit = await engine.generate(ask("hi"))
    assert (unfit.status, unfit.detail) == ("unfit", f"vLLM: {server.refuses}")
    server.busy = True
    assert (await engine.generate(ask("hi"))).status == "overloaded"


async def test_closing_a_stream_closes_the_connection(engine: VllmEngine, server: FakeVllm) -> None:
    async with aclosing(engine.stream(ask("forever"))) as events:
        assert isinstance(await anext(events), Delta)
    while server.abandoned == 0:
        await asyncio.sleep(0.005)


async def test_a_server_out_of_reach_fails_jobs_and_refuses_adapters(tmp_path: Path) -> None:
    with fake_vllm() as gone:
        engine = VllmEngine(gone.url, base=BASE)
    engine.start()
    reply = await engine.generate(ask("hi"))
    assert reply.status == "failed"
    assert gone.url in reply.detail
    with pytest.raises(AdapterError, match=gone.url):
        engine.load("abc", tmp_path)
    await engine.stop()


def test_the_engine_is_a_setting_that_needs_the_servers_address() -> None:
    with pytest.raises(SettingsError, match="vllm_url"):
        load_settings({"KALIMTAK_SERVING__ENGINE": "vllm"})


async def test_a_server_that_was_started_anew_is_given_its_adapters_again(
    engine: VllmEngine, server: FakeVllm, adapters: dict[str, Path]
) -> None:
    engine.load("abc", adapters["one"])
    server.adapters.clear()
    assert (await engine.generate(ask("hi", "abc"))).status == "not_loaded"
    assert engine.adapters == frozenset()
    engine.load("abc", adapters["one"])
    assert (await engine.generate(ask("hi", "abc"))).text == "abc: hi "


async def test_an_answer_may_hold_any_separator_of_lines(engine: VllmEngine) -> None:
    strange = "a\u2028b\u2029c\x85d\x0be\rf"
    assert (await engine.generate(ask(strange))).text == f"base: {strange} "


async def test_an_answer_that_cannot_be_read_is_a_failed_one(
    engine: VllmEngine, server: FakeVllm
) -> None:
    for garbage in (b"data: {", b"data: []", b'data: {"choices": [{}]}', b"data: \xff"):
        server.garbage = garbage
        reply = await engine.generate(ask("hi"))
        assert (reply.status, "cannot be read" in reply.detail) == ("failed", True), garbage
