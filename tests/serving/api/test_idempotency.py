"""A repeated request gets the answer of the first, from either of two routers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlmodel import select, update

from registry.clock import utc_now
from registry.models import FeedbackEvent, IdempotencyKey, UserInteraction
from serving.jobs import Reply
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router

GENERATE = ("/api/generate", {"text": "Write an email"})
CHAT = (
    "/v1/chat/completions",
    {"model": "kalimtak", "messages": [{"role": "user", "content": "Write an email"}]},
)


@pytest.fixture
async def routers(installation: Installation) -> AsyncIterator[tuple[Router, Router]]:
    """Two routers on one database."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running_router(installation.settings, name="1"))
        second = await stack.enter_async_context(running_router(installation.settings, name="2"))
        yield first, second


async def post(
    router: Router, path: str, body: Any, *, key: str | None = "k1", **headers: str
) -> httpx.Response:
    named = headers if key is None else {"Idempotency-Key": key, **headers}
    return await router.client.post(path, json=body, headers=named)


def count(installation: Installation, table: Any = UserInteraction) -> int:
    with installation.database.read() as session:
        return len(session.exec(select(table)).all())


@pytest.mark.parametrize(("path", "body"), [GENERATE, CHAT])
async def test_the_same_request_is_answered_once(
    routers: tuple[Router, Router], installation: Installation, path: str, body: dict[str, Any]
) -> None:
    one, two = routers
    first = await post(one, path, body)
    again = await post(two, path, body)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotent-replayed" not in first.headers
    assert count(installation) == 1
    other = await post(two, path, {**body, "seed": 5})
    assert other.status_code == 409
    assert "another body" in other.text
    assert (await post(two, path, {**body, "seed": 5}, key="k2")).status_code == 200
    assert count(installation) == 2


async def test_keys_belong_to_their_caller_and_path(
    routers: tuple[Router, Router], installation: Installation
) -> None:
    one, _ = routers
    await post(one, *GENERATE, authorization="Bearer a")
    other = await post(one, *GENERATE, authorization="Bearer b")
    assert "idempotent-replayed" not in other.headers
    assert (await post(one, *CHAT, authorization="Bearer a")).status_code == 200
    assert count(installation) == 3


async def test_feedback_is_taken_once(
    routers: tuple[Router, Router], installation: Installation
) -> None:
    one, two = routers
    rated = {"interaction_id": (await one.generate()).json()["interaction_id"], "score": 5}
    answers = [await post(router, "/api/feedback", rated) for router in (one, two, one)]
    assert {answer.text for answer in answers} == {answers[0].text}
    assert count(installation, FeedbackEvent) == 1


async def test_while_the_first_is_under_way_the_others_wait(
    routers: tuple[Router, Router], installation: Installation
) -> None:
    one, two = routers
    one.models.delay_s["default"] = two.models.delay_s["default"] = 0.5
    answers = await asyncio.gather(*(post(router, *GENERATE) for router in (one, two, one, two)))
    by_status = sorted(answer.status_code for answer in answers)
    assert by_status == [200, 409, 409, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.headers["retry-after"] == "1"
    assert count(installation) == 1
    assert (await post(two, *GENERATE)).headers["idempotent-replayed"] == "true"


async def test_a_failed_request_frees_its_key(
    routers: tuple[Router, Router], installation: Installation
) -> None:
    one, two = routers
    one.models.failures["default"] = Reply(status="failed", detail="out of luck")
    assert (await post(one, *GENERATE)).status_code == 500
    again = await post(two, *GENERATE)
    assert again.status_code == 200
    assert "idempotent-replayed" not in again.headers
    refused = await post(one, "/api/feedback", {"interaction_id": "no-such", "score": 1})
    assert refused.status_code == 404
    assert count(installation, IdempotencyKey) == 1


async def test_a_key_ends_with_its_time(
    routers: tuple[Router, Router], installation: Installation
) -> None:
    one, _ = routers
    await post(one, *GENERATE)
    with installation.database.write() as session:
        past = utc_now() - timedelta(seconds=1)
        session.connection().execute(update(IdempotencyKey).values(expires_at=past))
    assert "idempotent-replayed" not in (await post(one, *GENERATE)).headers
    assert count(installation) == 2


async def test_keys_that_cannot_be_honoured_are_refused(routers: tuple[Router, Router]) -> None:
    one, _ = routers
    for key in ("", "k" * 256):
        assert (await post(one, *GENERATE, key=key)).status_code == 400
    streamed = await post(one, "/api/generate", {**GENERATE[1], "stream": True})
    assert (streamed.status_code, streamed.json()["field"]) == (400, "Idempotency-Key")
    streamed = await post(one, "/v1/chat/completions", {**CHAT[1], "stream": True})
    assert streamed.json()["error"]["param"] == "Idempotency-Key"
