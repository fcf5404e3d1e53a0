"""OpenAI's protocol, spoken by the official client to a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlmodel import select

from registry.models import UserInteraction
from serving.jobs import Reply
from tests.serving.conftest import Installation
from tests.serving.router import Live, live_router

HELLO: Any = [{"role": "user", "content": "Write an email"}]


@pytest.fixture
def live(installation: Installation) -> Iterator[Live]:
    with live_router(installation.settings) as live:
        yield live


@pytest.fixture
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def rows(installation: Installation) -> list[UserInteraction]:
    with installation.database.read() as session:
        query = select(UserInteraction).order_by(UserInteraction.id)
        return list(session.exec(query).all())


def test_a_conversation_is_answered_logged_and_rated(
    client: openai.OpenAI, live: Live, installation: Installation
) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes?"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Write"}, {"type": "text", "text": "it"}],
        },
    ]
    answer = client.chat.completions.create(
        model="kalimtak",
        messages=messages,
        user="u1",
        max_completion_tokens=4,
        stop="x",
        seed=-1,
        temperature=0.5,
        top_p=0.9,
        metadata={"a": "b"},
        store=False,
        tools=[],
    )
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].finish_reason in ("stop", "length")
    ((_, job),) = live.models.jobs
    asked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Write\nit"},
    ]
    assert list(job.messages) == asked
    assert (job.max_new_tokens, job.temperature, job.top_p) == (4, 0.5, 0.9)
    assert (job.stop, job.seed, job.top_logprobs) == (("x",), 2**63 - 1, None)
    (row,) = rows(installation)
    assert row.id == answer.id
    assert (row.input_text, row.messages) == ("Write\nit", asked)
    assert row.model_output == row.structured_prompt == answer.choices[0].message.content
    assert (row.quality_score, row.scorer_version) == (None, None)
    assert row.user_id == installation.keyring.pseudonym("u1")
    rated = httpx.post(f"{live.url}/api/feedback", json={"interaction_id": answer.id, "score": 4})
    assert rated.status_code == 200
    assert rows(installation)[0].user_feedback == 1


def test_a_stream_makes_up_the_same_answer(
    client: openai.OpenAI, installation: Installation
) -> None:
    asked: Any = {"model": "kalimtak", "messages": HELLO, "seed": 3}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    *content, finish, usage = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in content)
    assert text == whole.choices[0].message.content
    assert finish.choices[0].finish_reason == whole.choices[0].finish_reason
    assert (usage.choices, usage.usage) == ([], whole.usage)
    assert {chunk.id for chunk in chunks} == {rows(installation)[1].id}
    assert rows(installation)[1].model_output == text


def test_the_answer_is_durable_before_its_last_chunk(
    client: openai.OpenAI, installation: Installation
) -> None:
    for chunk in client.chat.completions.create(model="kalimtak", messages=HELLO, stream=True):
        if chunk.choices[0].finish_reason is not None:
            assert [row.id for row in rows(installation)] == [chunk.id]
            break
    else:
        pytest.fail("no chunk told how the answer ended")


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices_differ_and_repeat(
    client: openai.OpenAI, installation: Installation, stream: bool
) -> None:
    def ask() -> tuple[str, list[str | None]]:
        asked: Any = {"model": "kalimtak", "messages": HELLO, "n": 3, "seed": 5, "temperature": 1.0}
        if not stream:
            answer = client.chat.completions.create(**asked)
            return answer.id, [choice.message.content for choice in answer.choices]
        texts = ["", "", ""]
        for chunk in client.chat.completions.create(**asked, stream=True):
            choice = chunk.choices[0]
            texts[choice.index] += choice.delta.content or ""
            found = chunk.id
        return found, list(texts)

    first, texts = ask()
    assert {row.id for row in rows(installation)} == {first, f"{first}-1", f"{first}-2"}
    assert len(set(texts)) == 3
    assert ask()[1] == texts


async def test_the_async_client_works_too(live: Live) -> None:
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none") as client:
        whole = await client.chat.completions.create(model="kalimtak", messages=HELLO, seed=1)
        stream = await client.chat.completions.create(
            model="kalimtak", messages=HELLO, seed=1, stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content


def test_a_model_name_chooses_the_version_and_pins_it(
    client: openai.OpenAI, live: Live, installation: Installation, adapters: dict[str, Path]
) -> None:
    base = installation.settings.training.base_model
    assert {model.id for model in client.models.list()} == {"kalimtak", "kalimtak:champion", base}
    champion, challenger = (installation.register(adapters[name]) for name in ("one", "two"))
    installation.deploy(champion)
    experiment = installation.try_out(challenger, share=1.0)
    live.follow()
    names = {
        "kalimtak": challenger,
        "kalimtak:champion": champion,
        "kalimtak:challenger": challenger,
        f"kalimtak:{champion}": champion,
        champion: champion,
        challenger: challenger,
        base: base,
    }
    for name, version in names.items():
        answer = client.chat.completions.create(model=name, messages=HELLO, max_tokens=1)
        assert answer.model == version, name
    counted = [row.experiment_id for row in rows(installation)]
    assert counted == [experiment.id, *[None] * 6]
    listed = {model.id: model for model in client.models.list()}
    assert set(names) - {f"kalimtak:{champion}"} == set(listed)
    assert listed[champion].created > 1_700_000_000
    assert client.models.retrieve(base).id == base
    for unknown in ("gpt-4o", "kalimtak:", "kalimtak:no-such", "prompts", ":champion"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.chat.completions.create(model=unknown, messages=HELLO)
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"frequency_penalty": -0.5}, "frequency_penalty"),
    ({"store": True}, "store"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"n": 9}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": ""}, "stop.0"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"extra_body": {"colour": "red"}}, "colour"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "system", "content": " "}]}, "messages"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "x" * 40_000}]}, "messages"),
    ({"messages": [{"role": "user", "content": "\0"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0.role"),
]


def test_what_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI, installation: Installation
) -> None:
    for asked, param in REFUSED:
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**{"model": "kalimtak", "messages": HELLO, **asked})
        error = refused.value
        assert (error.param, error.type) == (param, "invalid_request_error")
        assert param in str(error)
    assert rows(installation) == []


def test_what_other_backends_take_is_taken(
    client: openai.OpenAI, live: Live, installation: Installation
) -> None:
    cached: Any = {"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral"}}
    messages: Any = [
        {"role": "system", "content": [cached]},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "refusal": None},
        {"role": "assistant"},
    ]
    answer = client.chat.completions.create(
        model="kalimtak",
        messages=messages,
        max_tokens=4096,
        top_p=0,
        extra_body={"prompt_cache_options": {"ttl": "24h"}},
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8
    assert [message["content"] for message in live.models.jobs[0][1].messages] == [
        "Be brief",
        "Hello",
        "",
        "",
    ]
    client.chat.completions.create(
        model="kalimtak", messages=[{"role": "system", "content": "Write a haiku"}]
    )
    assert [row.input_text for row in rows(installation)] == ["Hello", "Write a haiku"]


def test_null_stands_for_what_is_left_out(live: Live) -> None:
    fields = ("stop", "n", "tools", "stream", "stream_options", "logprobs", "user", "seed")
    body = {"model": "kalimtak", "messages": HELLO, **dict.fromkeys(fields)}
    answer = httpx.post(f"{live.url}/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text


def test_logprobs_are_passed_on(client: openai.OpenAI, live: Live) -> None:
    answer = client.chat.completions.create(
        model="kalimtak", messages=HELLO, logprobs=True, top_logprobs=2
    )
    assert answer.choices[0].logprobs is not None
    assert live.models.jobs[0][1].top_logprobs == 2
    tokens = answer.choices[0].logprobs.content or []
    parts = [token for token in tokens if "\N{REPLACEMENT CHARACTER}" in token.token]
    # The tiny model writes bytes, most of which are parts of characters.
    assert parts
    assert all(token.bytes is None for token in parts)
    assert all(bytes(one.bytes or b"").decode() == one.token for one in tokens if one not in parts)


def test_a_conversation_beyond_the_context_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="kalimtak", messages=[{"role": "user", "content": "é" * 400}]
        )
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")


def test_what_the_models_template_refuses_is_no_failure_of_the_version(
    client: openai.OpenAI, live: Live, installation: Installation, adapters: dict[str, Path]
) -> None:
    champion, challenger = (installation.register(adapters[name]) for name in ("one", "two"))
    installation.deploy(champion)
    installation.try_out(challenger, share=1.0)
    live.follow()
    live.models.failures["challenger"] = Reply(status="unfit", detail="roles must alternate")
    with pytest.raises(openai.BadRequestError, match="roles must alternate") as refused:
        client.chat.completions.create(model="kalimtak", messages=HELLO)
    assert refused.value.param == "messages"
    live.finish()
    assert [role for role, _ in live.models.jobs] == ["challenger"]
    assert rows(installation) == []


def test_a_failure_in_mid_stream_is_an_error_event_and_is_counted(
    client: openai.OpenAI, live: Live, installation: Installation, adapters: dict[str, Path]
) -> None:
    installation.deploy(installation.register(adapters["one"]))
    live.follow()
    live.models.failures["champion"] = Reply(status="failed", detail="out of luck")
    live.models.pieces_before_failure = 2
    stream = client.chat.completions.create(model="kalimtak", messages=HELLO, stream=True, seed=1)
    texts: list[str | None] = []
    with pytest.raises(openai.APIError, match="out of luck"):
        texts.extend(chunk.choices[0].delta.content for chunk in stream)
    # extend keeps what came before the error.
    text = "".join(part or "" for part in texts)
    assert len(text) == 2
    live.finish()
    (row,) = rows(installation)
    assert (row.error, row.model_output) == ("out of luck", text)


def test_a_challenger_that_fails_before_its_first_word_is_answered_for(
    client: openai.OpenAI, live: Live, installation: Installation, adapters: dict[str, Path]
) -> None:
    champion, challenger = (installation.register(adapters[name]) for name in ("one", "two"))
    installation.deploy(champion)
    experiment = installation.try_out(challenger, share=1.0)
    live.follow()
    live.models.failures["challenger"] = Reply(status="failed", detail="out of luck")
    chunks = list(client.chat.completions.create(model="kalimtak", messages=HELLO, stream=True))
    assert {chunk.model for chunk in chunks} == {champion}
    by_role = {row.role: row for row in rows(installation)}
    assert by_role["challenger"].experiment_id == experiment.id
    assert by_role["challenger"].error == "out of luck"
    assert by_role["champion"].experiment_id is None


def test_a_client_that_leaves_ends_the_generation(
    client: openai.OpenAI, live: Live, installation: Installation
) -> None:
    live.models.pause_s = 0.2
    with client.chat.completions.create(
        model="kalimtak", messages=HELLO, stream=True, seed=1
    ) as stream:
        text = ""
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if text:
                break
    until(lambda: live.models.num_cancelled == 1)
    until(lambda: rows(installation) != [])
    (row,) = rows(installation)
    assert row.error == "the caller went away"
    assert row.model_output.startswith(text)


def test_a_client_that_does_not_wait_ends_the_generation_too(
    live: Live, installation: Installation
) -> None:
    live.models.delay_s["default"] = 60
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{live.url}/api/generate", json={"text": "Write"}, timeout=2)
    until(lambda: live.models.num_cancelled == 1)
    until(lambda: rows(installation) != [])
    assert rows(installation)[0].error == "the caller went away"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/generate"])
def test_a_stream_that_nobody_waits_for_is_ended_before_its_first_word(
    live: Live, installation: Installation, path: str
) -> None:
    live.models.delay_s["default"] = 60
    asked: Any = {"stream": True} | (
        {"text": "Write"} if path == "/api/generate" else {"model": "kalimtak", "messages": HELLO}
    )
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{live.url}{path}", json=asked, timeout=2)
    until(lambda: live.models.num_cancelled == 1)
    until(lambda: rows(installation) != [])
    assert rows(installation)[0].error == "the caller went away"


def until(condition: Any) -> None:
    ends_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)
