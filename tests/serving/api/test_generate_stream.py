"""/api/generate as it is written: deltas, then the whole answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import select

from registry.models import UserInteraction
from registry.monitoring import CALLER_LEFT
from serving import answering
from serving.asking import Ask, Sampling
from serving.jobs import Reply
from serving.problems import ProblemError
from tests.serving.conftest import Installation
from tests.serving.router import Router, rows, running_router


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_the_deltas_make_up_the_answer(router: Router, installation: Installation) -> None:
    whole = (await router.generate(seed=3)).json()
    *deltas, (name, answer) = events(await router.generate(seed=3, stream=True))
    assert {kind for kind, _ in deltas} == {"delta"}
    assert "".join(data["text"] for _, data in deltas) == answer["model_output"]
    assert name == "answer"
    assert {**answer, "interaction_id": ""} == {**whole, "interaction_id": ""}
    with installation.database.read() as session:
        assert session.get(UserInteraction, answer["interaction_id"]) is not None


async def test_a_refusal_before_the_first_word_has_a_status(router: Router) -> None:
    response = await router.generate(text="é" * 290, stream=True)
    assert (response.status_code, response.json()["field"]) == (422, "text")


async def test_a_failure_on_the_way_is_an_event(router: Router, installation: Installation) -> None:
    router.models.failures["default"] = Reply(status="failed", detail="out of luck")
    router.models.pieces_before_failure = 1
    (first, _), (last, problem) = events(await router.generate(seed=3, stream=True))
    assert (first, last) == ("delta", "error")
    assert (problem["status"], problem["detail"]) == (500, "the model failed: out of luck")
    await router.service.answerer.finish()
    with installation.database.read() as session:
        assert session.exec(select(UserInteraction)).one().error == "out of luck"


@pytest.mark.parametrize("stalls", [True, False])
async def test_who_does_not_read_is_as_one_who_left_and_no_failure_of_the_version(
    installation: Installation,
    adapters: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    stalls: bool,
) -> None:
    limit_s = 3.0
    monkeypatch.setattr(answering, "CHALLENGER_SHARE_OF_TIME", 1.0)
    installation.deploy(installation.register(adapters["one"]))
    experiment = installation.try_out(installation.register(adapters["two"]), share=1.0)
    serving = installation.settings.serving.model_copy(update={"request_timeout_s": limit_s})
    async with running_router(installation.settings.model_copy(update={"serving": serving})) as r:
        r.models.pause_s = 0.0 if stalls else 60.0
        asked = Ask(
            messages=[{"role": "user", "content": "hi"}],
            text="hi",
            sampling=Sampling(max_new_tokens=8, temperature=1.0, seed=3),
            user_id="u",
        )
        pieces = r.service.answerer.stream(asked)
        await anext(pieces)
        await asyncio.sleep(limit_s if stalls else 0)
        with pytest.raises(ProblemError, match="no answer within 3 s"):
            await anext(pieces)
        await r.service.answerer.finish()
    (row,) = [row for row in rows(installation) if row.role == "challenger"]
    left, failed = (CALLER_LEFT, None), ("no answer within 3 s", experiment.id)
    assert (row.error, row.experiment_id) == (left if stalls else failed)
