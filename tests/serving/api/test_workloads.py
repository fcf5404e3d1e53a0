"""Three workloads in one application: under mixed load nothing crosses from one to another."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from sqlmodel import select

from registry import workloads
from registry.models import UserInteraction
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router

NAMES = {"kalimtak": "default", "prompts": "prompts", "support": "support"}
NUM_REQUESTS = 90


async def test_three_workloads_never_cross(
    installation: Installation, adapters: dict[str, Path]
) -> None:
    champions, challengers, experiments = {}, {}, {}
    for workload in NAMES.values():
        if workload != "default":
            with installation.database.write() as session:
                workloads.add(session, installation.act(), workload)
        champions[workload] = installation.register(adapters["one"], workload=workload)
        challengers[workload] = installation.register(adapters["two"], workload=workload)
        installation.deploy(champions[workload], workload=workload)
        trial = installation.try_out(challengers[workload], share=0.5, workload=workload)
        experiments[workload] = trial.id
    async with running_router(installation.settings) as router:
        chance = random.Random(1)
        asked = [
            (
                chance.choice(list(NAMES)),
                chance.choice(["", "", ":champion", ":challenger"]),
                number,
            )
            for number in range(NUM_REQUESTS)
        ]
        answers = await asyncio.gather(*(_ask(router, *one) for one in asked))
    with installation.database.read() as session:
        rows = {row.id: row for row in session.exec(select(UserInteraction))}
    assert len(rows) == NUM_REQUESTS
    seen = set()
    for (name, alias, _), (interaction, version) in zip(asked, answers, strict=True):
        workload, row = NAMES[name], rows[interaction]
        assert row.workload == workload
        assert row.model_version == version
        own = {"champion": champions[workload], "challenger": challengers[workload]}
        assert version == own[row.role]
        assert row.role == alias[1:] or not alias
        assert row.experiment_id == (None if alias else experiments[workload])
        seen.add((workload, row.role, bool(alias)))
    assert len(seen) == 12


async def _ask(router: Router, name: str, alias: str, number: int) -> tuple[str, str]:
    """By either protocol in turn: the interaction's id, and the version that answered."""
    if number % 2:
        body = {"model": name + alias, "messages": [{"role": "user", "content": "Hi"}]}
        body |= {"max_tokens": 1, "user": f"u{number}"}
        found = (await router.client.post("/v1/chat/completions", json=body)).json()
        return found["id"], found["model"]
    pinned = {"model_version": alias[1:]} if alias else {}
    found = (
        await router.generate(workload=name, max_tokens=1, user_id=f"u{number}", **pinned)
    ).json()
    return found["interaction_id"], found["model_version"]


async def test_an_unknown_workload_is_refused(installation: Installation) -> None:
    async with running_router(installation.settings) as router:
        response = await router.generate(workload="no-such")
        assert response.status_code == 404
        assert response.json()["field"] == "workload"
        with installation.database.write() as session:
            workloads.add(session, installation.act(), "no-such")
        await router.follow()
        assert (await router.generate(workload="no-such")).status_code == 200
