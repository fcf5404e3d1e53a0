"""The client: nothing lost while the endpoint is away, nothing raised into the caller's way."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from registry.models import UserInteraction
from serving.api.app import create_api
from serving.client import AsyncClient, Client, Drop
from serving.client import retry as client_retry
from serving.errors import ClientError
from tests.serving.conftest import Installation
from tests.serving.router import running_router
from tests.support.fake_intake import Failure, FakeIntake, fake_intake
from tests.support.network import free_port


@pytest.fixture
def intake() -> Iterator[FakeIntake]:
    with fake_intake() as intake:
        yield intake


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_retry, "BASE_S", 0.01)


@pytest.fixture
async def endpoint(installation: Installation) -> AsyncIterator[str]:
    """The real application behind a real HTTP server."""
    port = free_port()
    async with running_router(installation.settings) as router:
        app = create_api(router.service)
        server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        await serving


def rows(installation: Installation) -> dict[str, UserInteraction]:
    with installation.database.read() as session:
        return {row.id: row for row in session.exec(select(UserInteraction)).all()}


def test_what_is_none_counts_as_left_out(intake: FakeIntake) -> None:
    with Client(intake.url) as client:
        logged = client.log(**exchange(id=None, created_at=None))
        assert client.flush()
    assert list(intake.stored) == [logged]
    assert intake.stored[logged]["created_at"]


def exchange(**changes: Any) -> Any:
    return {"input_text": "Write an email", "model_output": "Role: writer"} | changes


async def test_all_four_verbs_work_on_the_real_endpoint(
    endpoint: str, installation: Installation
) -> None:
    def use() -> tuple[str, str, int]:
        with Client(endpoint) as client:
            answer = client.generate("Write an email", user_id="u/1", max_tokens=4)
            logged = client.log(**exchange(user_id="u/1", model_version="gpt-x"))
            client.feedback(answer.interaction_id, score=5)
            client.feedback(logged, thumb=-1)
            assert client.flush()
            page = client.history("u/1", limit=1)
            rest = client.history("u/1", cursor=page.next)
            return answer.interaction_id, logged, len(page.interactions) + len(rest.interactions)

    answered, logged, number = await asyncio.to_thread(use)
    found = rows(installation)
    assert number == 2
    assert (found[answered].user_feedback, found[logged].user_feedback) == (1, -1)
    assert (found[logged].source, found[logged].external_model) == ("logged", "gpt-x")


async def test_the_asynchronous_client_does_the_same(
    endpoint: str, installation: Installation
) -> None:
    async with AsyncClient(endpoint) as client:
        answer = await client.generate("Write an email", user_id="u", max_tokens=4)
        logged = await client.log(**exchange(user_id="u", feedback={"score": 4}))
        await client.feedback(answer.interaction_id, thumb=1)
        assert await client.flush()
        page = await client.history("u")
    assert {entry["interaction_id"] for entry in page.interactions} == {
        answer.interaction_id,
        logged,
    }
    assert {row.user_feedback for row in rows(installation).values()} == {1}


async def test_the_example_runs(endpoint: str, installation: Installation) -> None:
    example = Path(__file__).parents[3] / "examples" / "log_from_elsewhere.py"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(example)],
        env=os.environ | {"KALIMTAK_URL": endpoint},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0 lost"
    assert len(rows(installation)) == 2


async def test_the_endpoint_refuses_one_and_takes_the_others(
    endpoint: str, installation: Installation
) -> None:
    drops: list[Drop] = []

    def use() -> None:
        with Client(endpoint, on_drop=drops.append) as client:
            client.log(**exchange(id="good"))
            client.log(**exchange(id="bad", model_output="nul\0"))
            client.log(**exchange(id="naive", created_at=datetime(2026, 1, 1)))
            client.log(**exchange(id="half", model_output="\ud800"))
            assert client.flush()
            assert client.num_dropped == 3

    await asyncio.to_thread(use)
    assert [drop.interaction_id for drop in drops] == ["bad", "naive", "half"]
    assert all(drop.reason.startswith("HTTP 422") for drop in drops)
    assert set(rows(installation)) == {"good"}


def test_what_a_failing_endpoint_does_not_take_comes_again_and_is_kept_once(
    intake: FakeIntake,
) -> None:
    intake.failures = [Failure(0), Failure(503), Failure(500), Failure(429, {"Retry-After": "0"})]
    # Its body took too long.
    intake.failures.append(Failure(408))
    # A proxy's own number for a server that is away.
    intake.failures.append(Failure(520))
    # The router that was asked first has died: its claim on the key ends by itself.
    intake.failures.append(Failure(409, {"Retry-After": "0"}))
    # The proxy in front of an endpoint that is being started or stopped.
    intake.failures.append(Failure(404, {"Content-Type": "text/plain"}))
    with Client(intake.url, flush_every_s=0.01) as client:
        ids = [client.log(**exchange()) for _ in range(50)]
        client.feedback(ids[0], score=5)
        assert client.flush()
        assert (client.num_dropped, client.num_waiting) == (0, 0)
    assert list(intake.stored) == ids
    assert [said["interaction_id"] for said in intake.feedback] == [ids[0]]


def test_an_answer_that_got_lost_on_the_way_back_makes_no_second_row(intake: FakeIntake) -> None:
    intake.stored["known"] = {}
    with Client(intake.url) as client:
        client.log(**exchange(id="known"))
        assert client.flush()
        assert client.num_dropped == 0


def test_an_item_that_the_endpoint_could_not_write_comes_again_before_its_feedback(
    intake: FakeIntake,
) -> None:
    intake.refuse = {"a": 503}
    with Client(intake.url, flush_every_s=0.01) as client:
        client.log(**exchange(id="a"))
        while len(intake.requests) < 2:
            threading.Event().wait(0.01)
        client.feedback("a", thumb=1)
        assert intake.feedback == []
        intake.refuse = {}
        assert client.flush()
    assert (list(intake.stored), len(intake.feedback)) == (["a"], 1)


def test_a_full_buffer_drops_what_is_new_and_says_so(intake: FakeIntake) -> None:
    drops: list[Drop] = []
    intake.open.clear()
    with Client(intake.url, capacity=3, on_drop=drops.append) as client:
        ids = [client.log(**exchange()) for _ in range(5)]
        assert client.num_dropped == 2
        intake.open.set()
        assert client.flush()
    assert [drop.interaction_id for drop in drops] == ids[3:]
    assert "3 things wait already" in drops[0].reason
    assert list(intake.stored) == ids[:3]


def test_nothing_reaches_the_caller_whatever_is_logged(intake: FakeIntake) -> None:
    def fail(drop: Drop) -> None:
        raise RuntimeError(drop.reason)

    with Client(intake.url, on_drop=fail) as client:
        client.log(**exchange(messages=[object()]))
        client.log(**exchange(processing_time_ms=float("nan")))
        assert client.num_dropped == 2
        endless: list[Any] = []
        endless.append(endless)
        client.log(**exchange(messages=endless))
        client.log(**exchange(id="fine"))
        assert client.flush()
        assert client.num_dropped == 3
    client.log(**exchange())
    assert client.num_dropped == 4
    assert list(intake.stored) == ["fine"]


def test_later_changes_of_what_was_logged_do_not_count(intake: FakeIntake) -> None:
    messages = [{"role": "user", "content": "a"}]
    with Client(intake.url) as client:
        client.log(id="a", messages=messages, model_output="b")
        messages[0]["content"] = "changed"
    assert intake.stored["a"]["messages"] == [{"role": "user", "content": "a"}]


def test_a_batch_too_large_for_the_way_is_sent_in_parts(intake: FakeIntake) -> None:
    intake.max_bytes = 1500
    with Client(intake.url) as client:
        ids = [client.log(**exchange()) for _ in range(30)]
        assert client.flush()
        assert client.num_dropped == 0
    assert sorted(intake.stored) == sorted(ids)


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_what_is_refused_for_good_is_dropped_with_the_reason(
    intake: FakeIntake, status: int
) -> None:
    drops: list[Drop] = []
    intake.failures = [Failure(status, {"Content-Type": "application/problem+json"})]
    with Client(intake.url, on_drop=drops.append) as client:
        client.log(**exchange(id="a"))
        assert client.flush()
        client.log(**exchange(id="b"))
    assert [(drop.interaction_id, drop.reason) for drop in drops] == [
        ("a", f"HTTP {status}: not now")
    ]
    assert list(intake.stored) == ["b"]


def test_closing_does_not_wait_for_an_endpoint_that_is_not_there() -> None:
    drops: list[Drop] = []
    client = Client(f"http://127.0.0.1:{free_port()}", on_drop=drops.append)
    client.log(**exchange())
    client.close(timeout_s=0.1)
    # What was on its way just then is told of once it has failed.
    for _ in range(500):
        if drops:
            break
        threading.Event().wait(0.01)
    assert [drop.reason for drop in drops] == ["it was not through when the client was closed"]


def test_the_key_goes_along_and_feedback_keeps_its_own_over_all_attempts(
    intake: FakeIntake,
) -> None:
    intake.failures = [Failure(503), Failure(503)]
    with Client(intake.url, api_key="secret") as client:
        client.feedback("a", score=1)
        assert client.flush()
    assert {headers["Authorization"] for _, _, headers in intake.requests} == {"Bearer secret"}
    keys = {headers["Idempotency-Key"] for _, _, headers in intake.requests}
    assert (len(keys), len(intake.requests)) == (1, 3)


def test_who_asks_for_errors_gets_them_and_retries_all_the_same(intake: FakeIntake) -> None:
    intake.failures = [Failure(503), Failure(0), Failure(422)]
    with Client(intake.url, raise_errors=True) as client:
        with pytest.raises(ClientError, match="HTTP 422: not now") as error:
            client.log(**exchange())
        assert error.value.status == 422
        client.log(**exchange(id="a"))
        assert list(intake.stored) == ["a"]
        with pytest.raises(ClientError, match="no JSON"):
            client.log(**exchange(messages=[object()]))
    with Client(f"http://127.0.0.1:{free_port()}", raise_errors=True) as client:
        with pytest.raises(ClientError, match="cannot be reached"):
            client.feedback("a", score=1)
        with pytest.raises(ClientError, match="cannot be reached"):
            client.generate("a")


async def test_who_asks_for_errors_gets_them_from_the_asynchronous_client(
    intake: FakeIntake,
) -> None:
    intake.failures = [Failure(503), Failure(409)]
    async with AsyncClient(intake.url, raise_errors=True) as client:
        with pytest.raises(ClientError, match="HTTP 409"):
            await client.log(**exchange())
        await client.feedback("a", score=1)
    assert len(intake.feedback) == 1


def test_whoever_waits_is_told_at_once_when_the_endpoint_wants_a_long_rest(
    intake: FakeIntake,
) -> None:
    intake.failures = [Failure(429, {"Retry-After": "120"})]
    with Client(intake.url) as client, pytest.raises(ClientError, match="HTTP 429"):
        client.generate("a")
    assert len(intake.requests) == 1


def test_a_url_that_is_none_is_refused_at_once() -> None:
    for url in ("localhost:8000", "http://", "http://[", "http://a:port"):
        with pytest.raises(ClientError, match="http"):
            Client(url)


def test_threads_may_share_a_client(intake: FakeIntake) -> None:
    with Client(intake.url, flush_every_s=0.01) as client:
        threads = [
            threading.Thread(target=lambda: [client.log(**exchange()) for _ in range(200)])
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush()
    assert len(intake.stored) == 1000


PROGRAM = """
import os, sys
from serving.client import Client
client = Client(sys.argv[1], flush_every_s=60)
client.log(id="parent", input_text="a", model_output="b")
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        client.log(id="child", input_text="a", model_output="b")
        assert client.flush()
        os._exit(client.num_dropped)
    assert os.waitpid(child, 0)[1] == 0
heavy = {"torch", "ray", "fastapi", "transformers", "sqlalchemy", "prefect"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(("how", "ids"), [("exit", ["parent"]), ("fork", ["child", "parent"])])
def test_what_waits_is_sent_at_exit_and_a_forked_child_sends_its_own(
    intake: FakeIntake, how: str, ids: list[str]
) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, intake.url, how],
        check=True,
        timeout=60,
        env=dict(os.environ),
    )
    sent = [item["id"] for _, body, _ in intake.requests for item in body["interactions"]]
    assert sent == ids


@given(attempt=st.integers(0, 10_000))
def test_pauses_grow_to_a_bound(attempt: int) -> None:
    longest = client_retry.delay_s(attempt, httpx.ConnectError("no"), uniform=lambda _, high: high)
    assert 0 < longest <= client_retry.CAP_S


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        ("99999999999999", 300, 300),
        ("-1", 0, 0),
        ("soon", 0, 0),
        (format_datetime(datetime(2999, 1, 1, tzinfo=UTC)), 300, 300),
        (format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True), 0, 0),
    ],
)
def test_the_servers_wish_is_the_least_pause(value: str, least: float, most: float) -> None:
    response = httpx.Response(503, headers={"Retry-After": value})
    pause = client_retry.delay_s(0, response, uniform=lambda low, _: low)
    assert least <= pause <= most
