"""What is refused at the door, and how it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serving.api import body as body_module
from tests.serving.conftest import Installation
from tests.serving.router import Router, assert_problem, rows, running_router


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


BAD_GENERATE: list[tuple[bytes, int, str]] = [
    (b"", 400, "body"),
    (b"not json", 400, "body"),
    (b"\xff\xfe{}", 400, "body"),
    (b'{"text": NaN}', 400, "body"),
    (b'{"text": "x", "seed": ' + b"1" * 5000 + b"}", 400, "body"),
    (b"[" * 60_000, 400, "body"),
    (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, 400, "body"),
    (b'{"text": {"a":' + b"[" * 50 + b"]" * 50 + b"}}", 422, "text"),
    (b"[]", 422, "body"),
    (b"null", 422, "body"),
    (b"{}", 422, "text"),
    (b'{"text": ""}', 422, "text"),
    (b'{"text": " \\n\\t "}', 422, "text"),
    (b'{"text": 5}', 422, "text"),
    (b'{"text": null}', 422, "text"),
    (b'{"text": "a\\u0000b"}', 422, "text"),
    (b'{"text": "a\\ud800b"}', 422, "text"),
    (b'{"text": "' + b"x" * 301 + b'"}', 422, "text"),
    (b'{"text": "x", "language": 1}', 422, "language"),
    (b'{"text": "x", "language": "' + b"l" * 101 + b'"}', 422, "language"),
    (b'{"text": "x", "target_tool": ["email"]}', 422, "target_tool"),
    (b'{"text": "x", "user_id": ""}', 422, "user_id"),
    (b'{"text": "x", "user_id": 7}', 422, "user_id"),
    (b'{"text": "x", "user_id": "\\udfff"}', 422, "user_id"),
    (b'{"text": "x", "session_id": "' + b"s" * 257 + b'"}', 422, "session_id"),
    (b'{"text": "x", "max_tokens": 0}', 422, "max_tokens"),
    (b'{"text": "x", "max_tokens": 9}', 422, "max_tokens"),
    (b'{"text": "x", "max_tokens": true}', 422, "max_tokens"),
    (b'{"text": "x", "temperature": -1}', 422, "temperature"),
    (b'{"text": "x", "temperature": 1e999}', 422, "temperature"),
    (b'{"text": "x", "seed": 1.5}', 422, "seed"),
    (b'{"text": "x", "seed": 99999999999999999999}', 422, "seed"),
    (b'{"text": "x", "top_p": -0.1}', 422, "top_p"),
    (b'{"text": "x", "model_version": "no-such"}', 404, "model_version"),
    (b'{"text": "x", "colour": "red"}', 422, "colour"),
]


async def test_a_bad_request_is_told_what_is_wrong(
    router: Router, installation: Installation
) -> None:
    for raw, status, field in BAD_GENERATE:
        response = await router.client.post("/api/generate", content=raw)
        assert_problem(response, status, field)
    assert rows(installation) == []


async def test_an_unknown_field_with_half_a_surrogate_is_told_back(router: Router) -> None:
    raw = b'{"text": "x", "\\ud800": 1}'
    assert_problem(await router.client.post("/api/generate", content=raw), 422)


async def test_a_huge_body_is_cut_off(router: Router) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    assert_problem(await router.client.post("/api/generate", content=endless()), 413, "body")


async def test_a_body_that_does_not_arrive_is_given_up(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module, "ARRIVAL_S", 0.05)
    given_up = asyncio.Event()

    async def dripping() -> AsyncIterator[bytes]:
        yield b'{"text":'
        await given_up.wait()

    asking = asyncio.create_task(router.client.post("/api/generate", content=dripping()))
    assert_problem(await asking, 408)
    given_up.set()


async def test_a_text_beyond_the_models_context_is_refused(router: Router) -> None:
    response = await router.generate(text="é" * 290)
    assert_problem(response, 422, "text")


BAD_FEEDBACK: list[tuple[dict[str, Any], int, str | None]] = [
    ({"interaction_id": "no-such", "score": 5}, 404, "interaction_id"),
    ({"interaction_id": "x", "score": 0}, 422, "score"),
    ({"interaction_id": "x", "score": 6}, 422, "score"),
    ({"interaction_id": "x", "score": 4.5}, 422, "score"),
    ({"interaction_id": "x", "score": "5"}, 422, "score"),
    ({"interaction_id": "x", "thumb": 2}, 422, "thumb"),
    ({"interaction_id": "x", "feedback_text": "x" * 301}, 422, "feedback_text"),
    ({"interaction_id": "x", "feedback_text": "\0"}, 422, "feedback_text"),
    ({"interaction_id": "x", "corrected_output": ""}, 422, "corrected_output"),
    ({"interaction_id": "", "score": 5}, 422, "interaction_id"),
    ({"score": 5}, 422, "interaction_id"),
    ({"interaction_id": "x"}, 422, None),
]


async def test_bad_feedback_is_told_what_is_wrong(router: Router) -> None:
    for body, status, field in BAD_FEEDBACK:
        response = await router.client.post("/api/feedback", content=json.dumps(body).encode())
        assert_problem(response, status, field)


async def test_unknown_paths_and_methods_are_problems_too(router: Router) -> None:
    assert_problem(await router.client.get("/nowhere"), 404)
    assert_problem(await router.client.get("/api/generate"), 405)


async def test_the_length_of_a_text_is_told_in_characters(router: Router) -> None:
    for body, said in [
        ({"text": "x", "user_id": "u" * 257}, "user_id: has 257 characters, at most 256 are taken"),
        ({"text": "x", "user_id": ""}, "user_id: must not be empty"),
    ]:
        response = await router.client.post("/api/generate", json=body)
        assert assert_problem(response, 422, "user_id")["detail"] == said


async def test_a_part_whose_type_cannot_be_told_back_is_refused_as_others_are(
    router: Router,
) -> None:
    part = b'{"role": "user", "content": [{"type": "\\ud800"}]}'
    body = b'{"model": "kalimtak", "messages": [' + part + b"]}"
    response = await router.client.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages.0.content"
