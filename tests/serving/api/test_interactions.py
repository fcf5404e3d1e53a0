"""POST /api/interactions: what another system answered is kept once, and faults stay alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from registry import privacy, quality
from registry.clock import new_id, utc_now
from registry.models import FeedbackEvent, UserInteraction
from registry.settings_access import AuthSettings
from serving.access.tokens import make_signer, make_token
from serving.recording.intake import MAX_BATCH, MAX_BODY_BYTES
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a SNES?"}]


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


def item(**changes: Any) -> dict[str, Any]:
    return {"input_text": "Write an email", "model_output": "Role: writer"} | changes


async def post(router: Router, body: Any) -> httpx.Response:
    # As ASCII, so that half a surrogate pair can be sent.
    return await router.client.post("/api/interactions", content=json.dumps(body))


async def batch(router: Router, *items: Any) -> Any:
    response = await post(router, {"interactions": items})
    assert response.status_code == 200, response.text
    return response.json()


def rows(installation: Installation) -> dict[str, UserInteraction]:
    with installation.database.read() as session:
        return {row.id: row for row in session.exec(select(UserInteraction)).all()}


def events(installation: Installation) -> list[FeedbackEvent]:
    with installation.database.read() as session:
        return list(session.exec(select(FeedbackEvent)).all())


async def test_an_answer_from_elsewhere_is_kept_with_all_that_is_said_of_it(
    router: Router, installation: Installation
) -> None:
    at = datetime(2026, 1, 14, 12, tzinfo=UTC)
    answer = await post(
        router,
        item(
            id="ours-1",
            created_at="2026-01-14T13:00:00+01:00",
            model_version="gpt-x",
            user_id="user-123",
            session_id="s",
            target_tool="email",
            language="en",
            tokens_input=3,
            tokens_output=4,
            processing_time_ms=12,
            feedback={"score": 5, "feedback_text": "Perfect!"},
        ),
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"] == [
        {"index": 0, "interaction_id": "ours-1", "status": "created", "error": None}
    ]
    row = rows(installation)["ours-1"]
    assert (row.created_at, row.source, row.role, row.experiment_id) == (
        at,
        "logged",
        "default",
        None,
    )
    assert (row.model_version, row.external_model) == (None, "gpt-x")
    assert row.user_id == installation.keyring.pseudonym("user-123")
    assert (row.tokens_total, row.processing_time_ms) == (7, 12)
    assert row.quality_score == quality.score("Role: writer", target_tool="email")
    assert (row.scorer_version, row.feedback_score, row.user_feedback) == ("rule-1", 5, 1)
    assert row.feedback_at is not None
    assert row.feedback_at > at
    history = (await router.client.get("/api/history/user-123")).json()
    assert [entry["interaction_id"] for entry in history["interactions"]] == ["ours-1"]


async def test_a_chat_is_kept_whole_and_its_answer_as_it_was(
    router: Router, installation: Installation
) -> None:
    answer = "Task: a console.\nAnd more."
    body = {"messages": CHAT, "model_output": answer}
    (result,) = (await post(router, body)).json()["results"]
    row = rows(installation)[result["interaction_id"]]
    assert (row.messages, row.input_text) == (CHAT, "What is a SNES?")
    assert (row.model_output, row.structured_prompt) == (answer, answer)


async def test_a_version_of_ours_is_referred_to_and_counts_in_no_trial(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    version = installation.register(adapters["one"])
    installation.deploy(version)
    (result,) = (await post(router, item(model_version=version))).json()["results"]
    row = rows(installation)[result["interaction_id"]]
    assert (row.model_version, row.external_model) == (version, None)
    assert (row.role, row.experiment_id) == ("default", None)


async def test_sending_again_changes_nothing_and_another_content_is_a_conflict(
    router: Router, installation: Installation
) -> None:
    first = item(id="a", feedback={"thumb": 1})
    told = await batch(router, first, first, item(id="a", model_output="other"))
    assert [result["status"] for result in told["results"]] == ["created", "duplicate", "refused"]
    assert told["results"][2]["error"]["status"] == 409
    assert (told["created"], told["duplicates"], told["refused"]) == (1, 1, 1)
    again = await batch(router, first | {"feedback": {"thumb": -1}})
    assert again["results"][0]["status"] == "duplicate"
    assert len(events(installation)) == 1
    assert rows(installation)["a"].user_feedback == 1
    conflict = await post(router, item(id="a", model_output="other"))
    assert conflict.status_code == 409
    assert conflict.json()["field"] == "id"


async def test_feedback_that_an_interrupted_attempt_left_out_is_made_up_for(
    router: Router, installation: Installation
) -> None:
    await batch(router, item(id="a"))
    told = await batch(router, item(id="a", feedback={"score": 2}))
    assert told["results"][0]["status"] == "duplicate"
    assert rows(installation)["a"].user_feedback == -1


async def test_feedback_that_is_sent_again_with_its_answer_is_one_event(
    router: Router, installation: Installation
) -> None:
    items = [item(id=f"{n}", feedback={"score": 2}) for n in range(20)]
    told = await asyncio.gather(*(batch(router, *items) for _ in range(5)))
    assert sum(answer["refused"] for answer in told) == 0
    assert len(events(installation)) == 20


async def test_feedback_that_comes_later_in_the_batch_counts(
    router: Router, installation: Installation
) -> None:
    told = await batch(router, item(id="a"), item(id="a", feedback={"score": 5}))
    assert [result["status"] for result in told["results"]] == ["created", "duplicate"]
    assert rows(installation)["a"].user_feedback == 1


async def test_nobody_rates_or_corrects_anothers_answer_by_sending_it_again(
    installation: Installation,
) -> None:
    auth = AuthSettings(enabled=True)
    signer = make_signer(auth, installation.keyring)
    with_auth = installation.settings.model_copy(update={"auth": auth})

    def who(name: str) -> dict[str, str]:
        token = make_token(
            signer, auth, subject=name, role="user", now=utc_now(), lifetime=timedelta(hours=1)
        )
        return {"Authorization": f"Bearer {token}"}

    evil = {"score": 1, "corrected_output": "evil"}
    async with running_router(with_auth) as router:
        for name, feedback, status in (("ann", None, 200), ("bob", evil, 409), ("ann", evil, 200)):
            sent = item(id="a") if feedback is None else item(id="a", feedback=feedback)
            answer = await router.client.post("/api/interactions", json=sent, headers=who(name))
            assert answer.status_code == status, answer.text
            corrected = rows(installation)["a"].corrected_output
            assert corrected == (None if name == "bob" or feedback is None else "evil")


@pytest.mark.parametrize(
    "strange",
    [
        {"messages": [{"role": "user", "content": [5] * 100_000}], "model_output": "a"},
        {f"key {number}": 1 for number in range(50_000)},
        {"input_text": "a", "model_output": "b", "feedback": {f"k{n}": 1 for n in range(5_000)}},
    ],
)
async def test_a_body_of_thousands_of_faults_is_refused_in_few_words(
    router: Router, strange: dict[str, Any]
) -> None:
    response = await post(router, strange)
    assert response.status_code == 422
    assert len(response.content) < 5_000


async def test_of_who_wants_no_content_kept_an_answer_may_be_sent_again(
    router: Router, installation: Installation
) -> None:
    with installation.database.write() as session:
        privacy.set_consent(session, installation.act(), "ann", "no_content")
    for status in ("created", "duplicate"):
        told = await batch(router, item(id="a", user_id="ann"))
        assert told["results"][0]["status"] == status
    assert rows(installation)["a"].input_text == ""


async def test_the_document_describes_the_body_completely_by_a_valid_example(
    router: Router,
) -> None:
    document = (await router.client.get("/openapi.json")).json()
    body = document["paths"]["/api/interactions"]["post"]["requestBody"]["content"]
    described = body["application/json"]
    schema = document["components"]["schemas"][described["schema"]["$ref"].rpartition("/")[2]]
    assert "$ref" not in json.dumps(schema)
    assert "feedback" in json.dumps(schema)
    assert (await post(router, described["example"])).json()["created"] == 1


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"model_output": ""}, "model_output"),
    ({"input_text": None}, "input_text"),
    ({"messages": CHAT}, "messages"),
    ({"input_text": "nul\0"}, "input_text"),
    ({"model_output": "\ud800"}, "model_output"),
    ({"tokens_input": -1}, "tokens_input"),
    ({"tokens_input": 2**31}, "tokens_input"),
    ({"tokens_input": "3"}, "tokens_input"),
    ({"processing_time_ms": -0.1}, "processing_time_ms"),
    ({"created_at": "2026-01-14T13:00:00"}, "created_at"),
    ({"created_at": "0001-01-01T00:00:00+14:00"}, "created_at"),
    ({"created_at": (utc_now() + timedelta(days=2)).isoformat()}, "created_at"),
    ({"feedback": {"score": 6}}, "feedback.score"),
    ({"feedback": {}}, "feedback"),
    ({"workload": "nobody's"}, "workload"),
    ({"workload": "\ud800"}, "workload"),
    ({"id": ""}, "id"),
    ({"id": "x" * 257}, "id"),
    ({"colour": "red"}, "colour"),
    ({"error": "down", "feedback": {"score": 1}}, "feedback"),
]


async def test_faulty_items_are_refused_alone_and_told_by_their_fields(
    router: Router, installation: Installation
) -> None:
    assert FAULTS
    told = await batch(router, item(id="good"), *(item() | change for change, _ in FAULTS))
    good, *others = told["results"]
    assert good["status"] == "created"
    for result, (change, field) in zip(others, FAULTS, strict=True):
        error = result["error"]
        assert (result["status"], error["status"]) == ("refused", 422), change
        assert field in (error["field"] or error["detail"])
    assert set(rows(installation)) == {"good"}


async def test_a_single_faulty_interaction_is_a_problem(router: Router) -> None:
    single = await post(router, item(tokens_input=-1))
    assert single.status_code == 422
    assert single.headers["content-type"].startswith("application/problem+json")
    assert single.json()["field"] == "tokens_input"


NO_CHATS: list[Any] = [
    [],
    [{"role": "assistant", "content": "hello"}],
    [*CHAT, {"role": "assistant", "content": "hello"}],
    [{"role": "user", "content": None}],
    [{"role": "user", "content": "a", "name": "\0"}],
    [{"role": "user", "content": "a", "extra": [[[["\ud800"]]]]}],
    [{"role": "user", "content": "a" * 200_001}],
    [{"role": "user", "content": "a", "extra": [[]] * 200_000}],
    [{"role": "user", "content": "a", "extra": [""] * 200_000}],
    ["hello"],
    "hello",
]


async def test_what_is_no_chat_is_refused(router: Router) -> None:
    assert NO_CHATS
    told = await batch(router, *({"messages": chat, "model_output": "a"} for chat in NO_CHATS))
    assert {result["status"] for result in told["results"]} == {"refused"}


async def test_a_number_beyond_doubles_in_a_chat_is_refused(router: Router) -> None:
    body = '{"messages":[{"role":"user","content":"a","x":1e999}],"model_output":"b"}'
    response = await router.client.post("/api/interactions", content=body)
    assert response.status_code == 422


async def test_a_failed_request_counts_as_an_error(
    router: Router, installation: Installation
) -> None:
    (result,) = (await post(router, {"input_text": "a", "error": "timeout"})).json()["results"]
    row = rows(installation)[result["interaction_id"]]
    assert (row.error, row.quality_score, row.model_output) == ("timeout", None, "")


BODIES: list[tuple[bytes, int]] = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 422),
    (b'{"interactions": []}', 422),
    (b'{"interactions": {}}', 422),
    (b'{"interactions": [{}], "more": 1}', 422),
    (b'{"interactions": [' + b"1," * MAX_BATCH + b"1]}", 422),
    (b" " * (MAX_BODY_BYTES + 1), 413),
    (b"[" * 100_000, 400),
]


async def test_a_faulty_body_is_a_problem(router: Router) -> None:
    assert BODIES
    for content, status in BODIES:
        response = await router.client.post("/api/interactions", content=content)
        assert response.status_code == status, response.text


async def test_a_full_batch_is_taken(router: Router, installation: Installation) -> None:
    items = [item(id=f"{n}", user_id=f"u{n % 7}", feedback={"thumb": 1}) for n in range(MAX_BATCH)]
    assert (await batch(router, *items))["created"] == MAX_BATCH
    assert len(rows(installation)) == MAX_BATCH
    assert len(events(installation)) == MAX_BATCH


async def test_the_same_batch_sent_by_many_at_once_is_kept_once(
    router: Router, installation: Installation
) -> None:
    items = [item(id=f"{n}") for n in range(20)]
    told = await asyncio.gather(*(batch(router, *items) for _ in range(5)))
    assert sum(answer["refused"] for answer in told) == 0
    assert len(rows(installation)) == 20


async def test_while_the_database_is_gone_the_caller_is_asked_to_come_back(
    router: Router, installation: Installation
) -> None:
    with installation.database.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE workloads RENAME TO away")
    response = await post(router, item())
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["id", "messages", "created_at", "feedback", "tokens_input", "user_id", "workload", "error"]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_whatever_is_sent_there_is_one_result_for_each_item(
    router: Router, data: st.DataObject
) -> None:
    changes = data.draw(st.lists(st.dictionaries(FIELDS, JSON, max_size=2), min_size=1, max_size=4))
    items = [item(id=new_id()) | change for change in changes]
    content = json.dumps({"interactions": items}).replace("NaN", "0").replace("Infinity", "0")
    response = await router.client.post("/api/interactions", content=content)
    assert response.status_code == 200, response.text
    assert [result["index"] for result in response.json()["results"]] == list(range(len(items)))
