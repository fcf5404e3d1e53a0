"""Everything a client can make long has an end; tests of bodies are beside the routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from registry import interactions
from registry.clock import new_id
from registry.interactions import Interaction
from serving import haproxy
from serving.api.caps import MAX_HEADER_BYTES, MAX_TARGET_BYTES
from serving.api.paging import MAX_LIMIT
from serving.schemas import MAX_ID_CHARS
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


def assert_problem(response: httpx.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


async def test_a_path_beyond_the_cap_is_refused(router: Router) -> None:
    path = "/api/history/"
    longest = "x" * (MAX_TARGET_BYTES - len(path))
    assert_problem(await router.client.get(path + longest), 422)  # the id is too long
    assert_problem(await router.client.get(path + longest + "x"), 414)
    assert_problem(await router.client.get("/healthz", params={"x": "y" * MAX_TARGET_BYTES}), 414)


async def test_the_longest_user_id_fits_into_the_path(router: Router) -> None:
    user = "\U0001f99c" * MAX_ID_CHARS
    response = await router.client.get(f"/api/history/{user}", params={"limit": 100})
    assert response.status_code == 200
    assert response.json()["user_id"] == user


async def test_headers_beyond_the_cap_are_refused(router: Router) -> None:
    few = sum(len(name) + len(value) for name, value in router.client.headers.raw)
    room = MAX_HEADER_BYTES - few - len("host") - len(router.client.base_url.host) - len("x")
    fits = {"x": "y" * room}
    assert (await router.client.get("/healthz", headers=fits)).status_code == 200
    assert_problem(await router.client.get("/healthz", headers={"x": "y" * (room + 1)}), 431)
    many = [(f"x-{number}", "y" * 50) for number in range(200)]
    assert_problem(await router.client.get("/healthz", headers=many), 431)


async def test_openais_clients_are_told_in_their_own_shape(router: Router) -> None:
    url, long = "/v1/chat/completions", {"x": "y" * MAX_HEADER_BYTES}
    for answer, status in [
        (await router.client.post(url, json={}, headers=long), 431),
        (await router.client.get("/v1/models", headers=long), 431),
        (await router.client.post(f"{url}?{'x' * MAX_TARGET_BYTES}", json={}), 414),
    ]:
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_what_the_router_takes_fits_into_haproxys_buffer() -> None:
    # HAProxy writes separators too, and keeps 1 KiB for what it adds.
    assert MAX_TARGET_BYTES + MAX_HEADER_BYTES <= (haproxy.BUFFER_BYTES - 1024) * 0.8


async def test_a_page_has_at_most_a_hundred_rows(
    router: Router, installation: Installation
) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        Interaction(
            id=new_id(),
            created_at=moment + timedelta(seconds=number),
            external_user_id="u",
            input_text="hi",
            structured_prompt="ho",
            model_output="ho",
        )
        for number in range(MAX_LIMIT + 1)
    ]
    with installation.database.write() as session:
        interactions.log(session, rows, keyring=installation.keyring)
    for asked in ("101", "100000", "9" * 300):
        page = (await router.client.get("/api/history/u", params={"limit": asked})).json()
        assert len(page["interactions"]) == MAX_LIMIT
        assert page["next"] is not None


async def test_details_of_the_client_are_cut_not_refused(router: Router) -> None:
    response = await router.client.post(
        "/api/generate", json={"text": "hi"}, headers={"user-agent": "a" * 5_000}
    )
    assert response.status_code == 200
