"""Shadow answers: logged, never seen, and the first to go under load."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from sqlmodel import select

from registry.models import UserInteraction
from registry.settings import Settings
from serving import shadow
from serving.jobs import Reply
from serving.shadow import MAX_RUNNING
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router


@pytest.fixture(autouse=True)
def _no_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with other work must not look like a full queue."""
    monkeypatch.setattr(shadow, "BUSY_QUEUE_MS", math.inf)


def shadowing(installation: Installation, share: float) -> Settings:
    serving = installation.settings.serving.model_copy(update={"shadow_share": share})
    return installation.settings.model_copy(update={"serving": serving})


async def tried_out(
    router: Router, installation: Installation, adapters: dict[str, Path], *, share: float
) -> tuple[str, str]:
    champion, challenger = (installation.register(adapters[name]) for name in ("one", "two"))
    installation.deploy(champion)
    installation.try_out(challenger, share=share)
    await router.follow()
    return champion, challenger


def by_role(installation: Installation) -> dict[str, list[UserInteraction]]:
    found: dict[str, list[UserInteraction]] = {}
    with installation.database.read() as session:
        for row in session.exec(select(UserInteraction)):
            found.setdefault(row.role, []).append(row)
    return found


async def finished(router: Router) -> None:
    async with asyncio.timeout(20):
        while router.service.shadows._running:
            await asyncio.sleep(0.01)


async def test_a_copy_is_logged_and_shown_to_nobody(
    installation: Installation, adapters: dict[str, Path]
) -> None:
    async with running_router(shadowing(installation, 1.0)) as router:
        champion, challenger = await tried_out(router, installation, adapters, share=1e-9)
        answer = (await router.generate(user_id="u1")).json()
        assert answer["model_version"] == champion
        await finished(router)
        history = (await router.client.get("/api/history/u1")).json()
        assert [item["model_version"] for item in history["interactions"]] == [champion]
        await router.generate(model_version=champion, user_id="u1")
        await finished(router)
    rows = by_role(installation)
    assert len(rows["champion"]) == 2
    (row,) = rows["shadow"]
    assert row.model_version == challenger
    assert row.user_id == installation.keyring.pseudonym("u1")
    assert row.input_text == "Write an email"
    assert row.quality_score is not None


async def test_the_share_is_by_person(
    installation: Installation, adapters: dict[str, Path]
) -> None:
    async with running_router(shadowing(installation, 0.5)) as router:
        await tried_out(router, installation, adapters, share=1e-9)
        for _ in range(2):
            for number in range(20):
                await router.generate(user_id=f"u{number}", max_tokens=1)
                await finished(router)
    people = [row.user_id for row in by_role(installation)["shadow"]]
    assert 0 < len(set(people)) < 20
    assert len(people) == 2 * len(set(people))


async def test_no_challenger_no_copy(installation: Installation) -> None:
    async with running_router(shadowing(installation, 1.0)) as router:
        await router.generate()
    assert set(by_role(installation)) == {"default"}


async def test_a_slow_challenger_costs_nobody_anything(
    installation: Installation, adapters: dict[str, Path]
) -> None:
    async with running_router(shadowing(installation, 1.0)) as router:
        await tried_out(router, installation, adapters, share=1e-9)
        router.models.delay_s["challenger"] = 60
        answers = [await router.generate(max_tokens=1) for _ in range(MAX_RUNNING + 2)]
        assert {answer.status_code for answer in answers} == {200}
        text = (await router.client.get("/metrics")).text
        assert 'kalimtak_shadows_total{outcome="dropped"} 2.0' in text
    assert "shadow" not in by_role(installation)


async def test_a_challenger_that_fails_is_blamed_and_one_without_room_is_left_alone(
    installation: Installation, adapters: dict[str, Path]
) -> None:
    async with running_router(shadowing(installation, 1.0)) as router:
        await tried_out(router, installation, adapters, share=1e-9)
        router.models.failures["challenger"] = Reply(status="failed", detail="NaN")
        assert (await router.generate()).status_code == 200
        await finished(router)
        router.models.failures["challenger"] = Reply(status="overloaded")
        assert (await router.generate()).status_code == 200
        await finished(router)
    (row,) = by_role(installation)["shadow"]
    assert row.error == "NaN"
    assert row.model_output == ""


async def test_a_copy_of_a_conversation_is_kept_as_one(
    installation: Installation, adapters: dict[str, Path]
) -> None:
    async with running_router(shadowing(installation, 1.0)) as router:
        await tried_out(router, installation, adapters, share=1e-9)
        messages = [{"role": "user", "content": "Good morning"}]
        body = {"model": "kalimtak", "messages": messages, "user": "u"}
        assert (await router.client.post("/v1/chat/completions", json=body)).status_code == 200
        await finished(router)
        (copy,) = by_role(installation)["shadow"]
    assert copy.messages == messages
    assert copy.structured_prompt == copy.model_output
    assert (copy.quality_score, copy.scorer_version) == (None, None)
