"""The record over HTTP: history, lineage and audit log, for administrators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from registry import experiments, lineage
from registry.clock import utc_now
from registry.models import ModelVersion, TrainingData
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


async def get(router: Router, path: str, **params: Any) -> Any:
    response = await router.client.get(f"/api/admin/{path}", params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def status(router: Router, path: str, **params: Any) -> int:
    response = await router.client.get(f"/api/admin/{path}", params=params)
    return response.status_code


async def test_history_tells_every_period_page_by_page(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    began = utc_now() - timedelta(seconds=1)
    one, two = (installation.register(adapters[name]) for name in ("one", "two"))
    installation.deploy(one)
    trial = installation.try_out(two, share=0.25)
    promote = f"/api/admin/versions/{two}/promote"
    response = await router.client.post(promote, json={"reason": "convinced"})
    assert response.status_code == 200
    first = await get(router, "history", limit=2)
    second = await get(router, "history", limit=2, cursor=first["next"])
    assert second["next"] is None
    found = first["periods"] + second["periods"]
    assert [row["action"] for row in found] == ["promote", "start_experiment", "deploy"]
    newest = found[0]
    assert (newest["version"], newest["reason"], newest["to_at"]) == (two, "convinced", None)
    assert newest["actor"].startswith("api:")
    assert newest["experiment_id"] == found[1]["experiment_id"] == trial.id
    assert (found[1]["challenger"], found[1]["share"]) == (two, 0.25)
    at = await get(router, "history/at", moment=found[1]["from_at"])
    assert at["period"] == found[1]
    assert (await get(router, "history/at", moment=began.isoformat()))["period"] is None
    ended = await get(router, "history", until=found[1]["from_at"])
    assert [row["action"] for row in ended["periods"]] == ["deploy"]
    assert await status(router, "history", cursor="rubbish") == 422
    assert await status(router, "history", workload="no-such") == 404
    assert await status(router, "history/at", moment="yesterday") == 422


async def test_history_names_all_that_divide_the_share(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    one, two, three = (installation.register(adapters["one"]) for _ in range(3))
    installation.deploy(one)
    with installation.database.write() as session:
        experiments.start(
            session,
            installation.act(),
            workload="default",
            challenger=two,
            rivals=[three],
            share=0.5,
            settings={},
        )
    trial, alone = (await get(router, "history"))["periods"]
    assert (trial["challenger"], trial["rivals"], trial["share"]) == (two, [three], 0.5)
    assert (alone["challenger"], alone["rivals"]) == (None, [])
    assert (await get(router, "history/at", moment=trial["from_at"]))["period"] == trial


async def test_who_answered_and_who_learned_from_it(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    one = installation.register(adapters["one"])
    installation.deploy(one)
    await router.follow()
    answer = (await router.generate()).json()["interaction_id"]
    found = await get(router, f"interactions/{answer}/version")
    assert (found["version"], found["role"]) == (one, "champion")
    assert found["production"]["period"]["version"] == one
    assert await status(router, "interactions/no-such/version") == 404
    learned = installation.register(adapters["two"])
    learn(installation, answer, learned, parent=one)
    version = await get(router, f"lineage/versions/{learned}")
    assert [node["version"] for node in version["line"]] == [learned, one]
    assert version["num_interactions"] == 1
    dataset = version["line"][0]["dataset"]
    assert (dataset["id"], dataset["num_present"], dataset["num_interactions"]) == ("d", 2, 1)
    assert (await get(router, "lineage/datasets/d"))["versions"] == [learned]
    assert (await get(router, f"lineage/interactions/{answer}"))["versions"] == [learned]
    assert (await get(router, f"lineage/versions/{one}"))["descendants"] == [learned]
    page = await get(router, "lineage/datasets/d/items", limit=1)
    rest = await get(router, "lineage/datasets/d/items", limit=1, after=page["next"])
    assert [row["sample_id"] for row in page["items"] + rest["items"]] == ["t1", "t2"]
    assert rest["next"] is None
    for path in ("versions/no", "datasets/no", "interactions/no"):
        assert await status(router, f"lineage/{path}") == 404


async def test_the_audit_log_is_listed_page_by_page(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    installation.deploy(installation.register(adapters["one"]))
    installation.try_out(installation.register(adapters["two"]), share=0.5)
    first = await get(router, "audit", limit=1)
    rest = await get(router, "audit", before=first["next"])
    assert [row["action"] for row in first["entries"] + rest["entries"]] == [
        "start_experiment",
        "deploy",
    ]
    assert rest["next"] is None
    assert (await get(router, "audit", action="deploy"))["entries"] == rest["entries"]


def learn(installation: Installation, interaction_id: str, version: str, *, parent: str) -> None:
    """Make it so that `version` was trained on two samples of an interaction."""
    now = utc_now()
    with installation.database.write() as session:
        for name in ("t1", "t2"):
            session.add(
                TrainingData(
                    id=name,
                    source_interaction_id=interaction_id,
                    input_prompt="p",
                    target_output="o",
                    content_hash=name,
                    cluster_id=name,
                    split="train",
                    created_at=now,
                )
            )
        session.flush()
        lineage.add_dataset(
            session,
            dataset_id="d",
            workload="default",
            digest="f" * 64,
            items=[("t1", "train"), ("t2", "train")],
            settings={},
            counts={"train": 2},
            now=now,
        )
        row = session.get_one(ModelVersion, version)
        row.training_dataset_id, row.parent_version = "d", parent
        session.add(row)
