"""A repeated request gets the answer of the first, from either of two routers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlmodel import delete, select, update
from starlette.types import Message

from registry import keys, privacy
from registry.clock import utc_now
from registry.models import FeedbackEvent, IdempotencyKey, UserInteraction
from registry.settings_access import AuthSettings
from serving.api.service import PATIENCE_S
from serving.jobs import Reply
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router

pytestmark = pytest.mark.both_databases

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


@pytest.fixture
async def hasty(installation: Installation) -> AsyncIterator[Router]:
    """One that waits for the database no longer than real ones do."""
    async with running_router(installation.settings, name="3", patience_s=PATIENCE_S) as router:
        yield router


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
    one.models.delay_s["default"] = two.models.delay_s["default"] = 2.0
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


async def test_keys_of_two_services_that_show_api_keys_are_apart(
    installation: Installation,
) -> None:
    with installation.database.write() as session:
        one, two = (
            keys.create(
                session, installation.act(), name=name, role="user", subject=None, lifetime=None
            ).text
            for name in ("a", "b")
        )
    with_auth = installation.settings.model_copy(update={"auth": AuthSettings(enabled=True)})
    async with running_router(with_auth) as router:
        for header, value in (("X-API-Key", "{}"), ("Authorization", "Bearer {}")):
            answers = [
                await post(router, *GENERATE, key=header, **{header: value.format(key)})
                for key in (one, two, one)
            ]
            assert [answer.status_code for answer in answers] == [200] * 3
            replayed = ["idempotent-replayed" in answer.headers for answer in answers]
            assert replayed == [False, False, True]


async def test_an_answer_is_told_although_the_database_cannot_keep_it(
    routers: tuple[Router, Router], hasty: Router, installation: Installation
) -> None:
    one, (_, two) = hasty, routers
    one.models.delay_s["default"] = 0.2
    asking = asyncio.create_task(post(one, *GENERATE))
    await until(lambda: one.models.jobs != [])
    with installation.locked():
        assert (await asking).status_code == 200
    again = await post(two, *GENERATE)
    assert (again.status_code, again.headers["retry-after"]) == (409, "1")
    await until(lambda: one.service.recorder.into == "database")
    assert count(installation) == 1


async def test_who_leaves_while_the_answer_is_written_down_finds_it_later(
    routers: tuple[Router, Router], installation: Installation
) -> None:
    one, two = routers
    one.models.delay_s["default"] = 0.2
    has_left = asyncio.Event()
    leaving = asyncio.create_task(post_and_leave(one, *GENERATE, has_left))
    await until(lambda: one.models.jobs != [])
    with installation.locked():
        await until(lambda: one.models.num_answered == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        has_left.set()
        for _ in range(20):
            await asyncio.sleep(0)
    await leaving
    assert (await post(two, *GENERATE)).headers["idempotent-replayed"] == "true"
    assert count(installation) == 1


async def test_of_who_wants_no_content_kept_no_answer_is_kept(
    routers: tuple[Router, Router], installation: Installation
) -> None:
    one, two = routers
    with installation.database.write() as session:
        privacy.set_consent(session, installation.act(), "ann", "no_content")
    path, body = GENERATE
    first = await post(one, path, body | {"user_id": "ann"})
    again = await post(two, path, body | {"user_id": "ann"})
    assert (first.status_code, again.status_code) == (200, 409)
    assert "wants no content" in again.json()["detail"]
    with installation.database.read() as session:
        (kept,) = session.exec(select(IdempotencyKey)).all()
    assert first.json()["interaction_id"] not in str(kept.body)
    assert count(installation) == 1


async def test_feedback_whose_answer_was_not_kept_is_written_once_all_the_same(
    routers: tuple[Router, Router], installation: Installation
) -> None:
    one, two = routers
    rated = {"interaction_id": (await one.generate()).json()["interaction_id"], "score": 5}
    assert (await post(one, "/api/feedback", rated)).status_code == 200
    with installation.database.write() as session:
        session.connection().execute(delete(IdempotencyKey))
    assert (await post(two, "/api/feedback", rated)).status_code == 200
    assert count(installation, FeedbackEvent) == 1
    assert (await post(two, "/api/feedback", rated, key="k2")).status_code == 200
    assert count(installation, FeedbackEvent) == 2


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def post_and_leave(router: Router, path: str, body: Any, has_left: asyncio.Event) -> None:
    """A request with the key k1, whose caller closes the connection."""
    coming = [json.dumps(body, separators=(",", ":")).encode()]  # as httpx does

    async def receive() -> Message:
        if coming:
            return {"type": "http.request", "body": coming.pop(), "more_body": False}
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(_message: Message) -> None:
        """Nobody is there."""

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"idempotency-key", b"k1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await router.app(scope, receive, send)
