"""The HTTP endpoints: what is answered, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlmodel import select

from registry import interactions
from registry.db import Database
from registry.models import ClientMetadata
from registry.quality import RULE_SCORER
from serving.jobs import Reply, Status
from tests.serving.conftest import Installation
from tests.serving.router import Router, assert_problem, rows, running_router


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


async def test_without_a_version_the_base_answers_and_the_answer_is_kept(
    router: Router, installation: Installation
) -> None:
    response = await router.generate(
        text="Write an email", language="en", target_tool="email", user_id="user-123"
    )
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["model_version"] == installation.settings.training.base_model
    assert answer["role"] == "default"
    (row,) = rows(installation)
    assert row.id == answer["interaction_id"]
    assert (row.model_version, row.role, row.experiment_id) == (None, "default", None)
    assert (row.model_output, row.structured_prompt) == (
        answer["model_output"],
        answer["structured_prompt"],
    )
    assert row.tokens_total == answer["tokens_used"]
    assert row.user_id == installation.keyring.pseudonym("user-123")
    assert row.processing_time_ms is not None
    assert row.processing_time_ms > 0
    assert row.queue_ms is not None
    assert row.scorer_version == RULE_SCORER
    assert (await router.client.get("/readyz")).json()["state"] == "NoChampion"


async def test_the_model_is_asked_in_the_products_format(router: Router) -> None:
    await router.generate(text="Plan a trip", target_tool="code generation", max_tokens=3, seed=1)
    ((role, job),) = router.models.jobs
    assert role == "default"
    assert job.max_new_tokens == 3
    (message,) = job.messages
    assert message["content"].startswith("Convert to professional prompt: Plan a trip\nTool: code")


async def test_unknown_tools_and_languages_are_logged_as_sent(
    router: Router, installation: Installation
) -> None:
    for tool, language in [("code generation", "en-US"), ("🦜", "klingon"), ("", ""), (None, None)]:
        assert (await router.generate(target_tool=tool, language=language)).status_code == 200
    assert {(row.target_tool, row.language) for row in rows(installation)} == {
        ("code generation", "en-US"),
        ("🦜", "klingon"),
        ("", ""),
        (None, None),
    }


async def test_seeded_requests_repeat(router: Router) -> None:
    first, second = [(await router.generate(seed=5, temperature=1)).json() for _ in range(2)]
    assert first["model_output"] == second["model_output"]


async def test_an_experiment_splits_people_and_a_pinned_request_is_not_counted(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    champion, challenger = (installation.register(adapters[name]) for name in ("one", "two"))
    installation.deploy(champion)
    experiment = installation.try_out(challenger, share=0.5)
    await router.follow()
    answers = [(await router.generate(user_id=f"u{n}", max_tokens=1)).json() for n in range(20)]
    again = [(await router.generate(user_id=f"u{n}", max_tokens=1)).json() for n in range(20)]
    versions = [answer["model_version"] for answer in answers]
    assert versions == [answer["model_version"] for answer in again]
    assert set(versions) == {champion, challenger}
    assert {row.experiment_id for row in rows(installation)} == {experiment.id}
    pinned = (await router.generate(user_id="u0", model_version=challenger)).json()
    assert pinned["model_version"] == challenger
    row = next(row for row in rows(installation) if row.id == pinned["interaction_id"])
    assert row.experiment_id is None
    base = installation.settings.training.base_model
    assert (await router.generate(model_version=base)).json()["role"] == "default"


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_failing_challenger_is_answered_for_and_blamed(
    installation: Installation, adapters: dict[str, Path], hangs: bool
) -> None:
    serving = installation.settings.serving.model_copy(update={"request_timeout_s": 8})
    async with running_router(installation.settings.model_copy(update={"serving": serving})) as r:
        champion = installation.register(adapters["one"])
        challenger = installation.register(adapters["two" if hangs else "broken"])
        installation.deploy(champion)
        experiment = installation.try_out(challenger, share=1.0)
        await r.follow()
        if hangs:
            r.models.delay_s["challenger"] = 60
        answer = await r.generate(user_id="u")
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_version"] == champion
    by_role = {row.role: row for row in rows(installation)}
    assert by_role["challenger"].error is not None
    assert by_role["challenger"].model_output == ""
    assert by_role["challenger"].experiment_id == experiment.id
    assert by_role["champion"].error is None
    assert by_role["champion"].experiment_id is None


@pytest.mark.parametrize("path", ["answer", "stream"])
@pytest.mark.parametrize("status", ["overloaded", "not_loaded"])
async def test_a_failing_challenger_is_blamed_once_also_where_nobody_can_answer_for_it(
    router: Router, installation: Installation, adapters: dict[str, Path], path: str, status: Status
) -> None:
    installation.deploy(installation.register(adapters["one"]))
    experiment = installation.try_out(installation.register(adapters["two"]), share=1.0)
    await router.follow()
    router.models.failures["challenger"] = Reply(status="failed", detail="out of luck")
    router.models.failures["champion"] = Reply(status=status, detail="busy")
    assert_problem(await router.generate(user_id="u", stream=path == "stream"), 503)
    await router.service.answerer.finish()
    (row,) = rows(installation)
    assert (row.role, row.error, row.experiment_id) == ("challenger", "out of luck", experiment.id)


async def test_a_failing_champion_is_a_problem_and_counts_as_an_error(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    installation.deploy(installation.register(adapters["broken"]))
    await router.follow()
    assert_problem(await router.generate(), 500)
    await router.service.answerer.finish()
    (row,) = rows(installation)
    assert (row.role, row.model_output) == ("champion", "")
    assert row.error is not None


async def test_a_corrupt_adapter_is_refused_by_digest_and_the_champion_serves_on(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    champion, challenger = (installation.register(adapters[name]) for name in ("one", "two"))
    installation.deploy(champion)
    installation.try_out(challenger, share=1.0)
    live = installation.desired().challenger
    assert live is not None
    folder = Path(installation.settings.home) / "artifacts" / live.adapter_digest
    (folder / "adapter_model.safetensors").write_bytes(b"garbage")
    await router.follow()
    answer = (await router.generate(user_id="u")).json()
    assert answer["model_version"] == champion
    refused = (await router.client.get("/readyz")).json()["refused"]
    assert live.adapter_digest in refused[challenger]


async def test_promotion_and_rollback_only_flip_the_route(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    one, two = (installation.register(adapters[name]) for name in ("one", "two"))
    for version in (one, two):
        installation.deploy(version)
        await router.follow()
        assert (await router.generate()).json()["model_version"] == version
    installation.roll_back()
    # The router alone looks: what it needs is loaded already.
    await router.service.state.refresh()
    assert (await router.generate()).json()["model_version"] == one


async def test_models_are_listed_while_the_database_is_away(installation: Installation) -> None:
    async with running_router(installation.settings) as router:
        away = Database("postgresql://nobody@127.0.0.1:1/nothing")
        router.app.state.service = replace(router.service, database=away)
        listed = await router.client.get("/v1/models")
        away.close()
    assert [model["created"] for model in listed.json()["data"]] == [0, 0, 0]


async def test_a_request_that_takes_too_long_ends_with_504(installation: Installation) -> None:
    serving = installation.settings.serving.model_copy(update={"request_timeout_s": 0.2})
    async with running_router(installation.settings.model_copy(update={"serving": serving})) as r:
        r.models.delay_s["default"] = 60
        assert_problem(await r.generate(), 504)
    (row,) = rows(installation)
    assert row.error is not None


async def test_while_the_database_is_away_answers_and_feedback_are_kept(
    router: Router, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError("disk full")

    assert (await router.client.get("/readyz")).json()["recording"] == "database"
    with monkeypatch.context() as away:
        away.setattr(interactions, "log", refuse)
        answer = await router.generate()
        assert answer.status_code == 200
        assert (await router.client.get("/readyz")).json()["recording"] == "spool"
        said = {"interaction_id": answer.json()["interaction_id"], "score": 5}
        assert (await router.client.post("/api/feedback", json=said)).status_code == 200
        assert rows(installation) == []
    while router.service.recorder.into == "spool":
        await asyncio.sleep(0.05)
    (row,) = rows(installation)
    assert row.feedback_score == 5


async def test_past_the_spools_bound_requests_are_refused_before_any_work(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError("disk full")

    serving = installation.settings.serving.model_copy(update={"spool_max_bytes": 1_500})
    async with running_router(installation.settings.model_copy(update={"serving": serving})) as r:
        with monkeypatch.context() as away:
            away.setattr(interactions, "log", refuse)
            statuses = [(await r.generate()).status_code for _ in range(4)]
            assert statuses[0] == 200
            assert statuses[-1] == 503
            refused = await r.generate()
            assert_problem(refused, 503)
            assert refused.headers["retry-after"]
        kept = statuses.count(200)
    async with running_router(installation.settings) as r:
        while len(rows(installation)) < kept:
            await asyncio.sleep(0.05)
    assert len(rows(installation)) == kept


async def test_client_details_are_kept_encrypted_and_forwarding_headers_ignored(
    router: Router, installation: Installation
) -> None:
    response = await router.client.post(
        "/api/generate",
        json={"text": "hi"},
        headers={"user-agent": "probe/1", "x-forwarded-for": "6.6.6.6"},
    )
    with installation.database.read() as session:
        row = session.exec(select(ClientMetadata)).one()
    assert row.interaction_id == response.json()["interaction_id"]
    assert row.ip_address_encrypted is not None
    context = f"client_metadata.ip_address:{row.interaction_id}"
    address = installation.keyring.decrypt(row.ip_address_encrypted, context=context)
    assert address == "127.0.0.1"


async def test_feedback_reaches_the_answer(router: Router, installation: Installation) -> None:
    interaction = (await router.generate()).json()["interaction_id"]
    response = await router.client.post(
        "/api/feedback",
        json={"interaction_id": interaction, "score": 5, "feedback_text": "Perfect!"},
    )
    assert response.json() == {"status": "success", "message": "Feedback recorded"}
    (row,) = rows(installation)
    assert (row.feedback_score, row.user_feedback, row.feedback_text) == (5, 1, "Perfect!")
    body = {"interaction_id": interaction, "thumb": -1, "corrected_output": "Role: better"}
    assert (await router.client.post("/api/feedback", json=body)).status_code == 200
    (row,) = rows(installation)
    assert (row.user_feedback, row.corrected_output) == (-1, "Role: better")


@pytest.mark.parametrize("user", ["vic\n", "a\nb", "a\rb\n", "x/consent", "سارة 🙂"])
async def test_any_id_is_its_own_persons_in_a_path(
    router: Router, installation: Installation, user: str
) -> None:
    for name in (user, "vic", "a"):
        assert (await router.generate(user_id=name, max_tokens=1)).status_code == 200
    quoted = quote(user, safe="")
    history = (await router.client.get(f"/api/history/{quoted}")).json()
    assert (history["user_id"], len(history["interactions"])) == (user, 1)
    export = (await router.client.get(f"/api/users/{quoted}/export")).json()
    assert (export["user_id"], len(export["interactions"])) == (user, 1)
    assert (await router.client.delete(f"/api/users/{quoted}")).status_code == 200
    left = {row.user_id for row in rows(installation)}
    assert left == {installation.keyring.pseudonym(name) for name in ("vic", "a")}


async def test_history_shows_only_ones_own_answers_page_by_page(router: Router) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    router.service.answerer._clock = lambda: moment  # all in one moment: ids break the tie
    user = "a/b c?"
    for _ in range(5):
        assert (await router.generate(user_id=user, max_tokens=1)).status_code == 200
    await router.generate(user_id="other", max_tokens=1)
    found, cursor = [], None
    while True:
        page = (
            await router.client.get(
                "/api/history/a%2Fb%20c%3F",
                params={"limit": 2} | ({"cursor": cursor} if cursor else {}),
            )
        ).json()
        assert page["user_id"] == user
        assert len(page["interactions"]) <= 2
        found += [item["interaction_id"] for item in page["interactions"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(found) == len(set(found)) == 5
    assert page["interactions"][0]["text"] == "Write an email"
    nobody = (await router.client.get("/api/history/nobody")).json()
    assert nobody == {"user_id": "nobody", "interactions": [], "next": None}
    assert_problem(await router.client.get("/api/history/u?cursor=nonsense"), 422, "cursor")
    assert_problem(await router.client.get("/api/history/u?limit=0"), 422, "limit")
    assert (await router.client.get("/api/history/u?limit=100000")).status_code == 200
