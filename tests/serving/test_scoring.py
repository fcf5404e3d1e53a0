"""Routers score with whichever scorer is active, and with the rule where it cannot be had."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlmodel import select

from registry import scorer, scorers
from registry.features import Sample
from registry.models import UserInteraction
from registry.quality import RULE_SCORER
from serving.scoring import RETRY_LOOKS, Scorers
from tests.registry.test_scorer import make_scorer
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router

SAMPLE = Sample("write a mail", "Role: expert\nTask: a mail", "email", "en")


def publish(installation: Installation, folder: Path, *, name: str, seed: int = 1) -> str:
    """Keep a scorer and have it score; its digest."""
    scorer.save(make_scorer(seed), folder / name, manifest={"name": name})
    digest = installation.store.publish(folder / name)
    with installation.database.write() as session:
        scorers.add(
            session,
            installation.act(),
            version=name,
            workload="default",
            digest=digest,
            metrics={},
        )
        scorers.activate(session, installation.act(), name)
    return digest


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the poller is about to do."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def stored(installation: Installation) -> list[tuple[float | None, str | None]]:
    with installation.database.read() as session:
        rows = session.exec(select(UserInteraction).order_by(UserInteraction.id)).all()  # type: ignore[arg-type]
        return [(row.quality_score, row.scorer_version) for row in rows]


async def test_a_running_router_takes_up_a_scorer_that_is_activated(
    installation: Installation, tmp_path: Path
) -> None:
    async with running_router(installation.settings) as router:
        await ask(router)
        publish(installation, tmp_path, name="scorer-1")
        await until(lambda: router.service.scorers.active("default") is not None)
        await ask(router)
        with installation.database.write() as session:
            scorers.deactivate(session, installation.act(), workload="default")
        await until(lambda: router.service.scorers.active("default") is None)
        await ask(router)
    versions = [version for _, version in stored(installation)]
    assert versions == [RULE_SCORER, "scorer-1", RULE_SCORER]
    assert all(score is not None and 0 <= score <= 1 for score, _ in stored(installation))


async def ask(router: Router) -> None:
    response = await router.generate()
    assert response.status_code == 200, response.text


async def test_with_a_damaged_scorer_the_rule_scores_and_the_status_says_so(
    installation: Installation, tmp_path: Path
) -> None:
    digest = publish(installation, tmp_path, name="scorer-1")
    damage(installation, digest)
    async with running_router(installation.settings) as router:
        await until(lambda: "scorer-1" in router.service.scorers.refused)
        await ask(router)
        await router.service.state.refresh()
        status = (await router.client.get("/api/admin/status")).json()
    [refused] = [one["refused"] for one in status["replicas"] if one["kind"] == "router"]
    assert "altered or cut short" in refused["scorer-1"] or "misses" in refused["scorer-1"]
    assert [version for _, version in stored(installation)] == [RULE_SCORER]


def damage(installation: Installation, digest: str) -> None:
    folder = Path(installation.settings.resolved_artifacts_url.removeprefix("file://")) / digest
    file = folder / scorer.ARRAYS_FILE
    file.write_bytes(file.read_bytes()[:-10])


@pytest.fixture
def followed(installation: Installation) -> Scorers:
    return Scorers(installation.database, installation.store)


def test_a_scorer_that_comes_back_is_taken_up(
    installation: Installation, followed: Scorers, tmp_path: Path
) -> None:
    digest = publish(installation, tmp_path, name="scorer-1")
    store = Path(installation.settings.resolved_artifacts_url.removeprefix("file://"))
    shutil.move(store / digest, tmp_path / "away")
    followed.follow()
    assert "is not in" in followed.refused["scorer-1"]
    shutil.move(tmp_path / "away", store / digest)
    for _ in range(RETRY_LOOKS):
        followed.follow()
    assert followed.refused == {}
    assert followed.score("default", SAMPLE).scorer_version == "scorer-1"
    assert followed.score("other", SAMPLE).scorer_version == RULE_SCORER


def test_the_next_scorer_takes_over_and_a_refused_one_is_forgotten(
    installation: Installation, followed: Scorers, tmp_path: Path
) -> None:
    damage(installation, publish(installation, tmp_path, name="scorer-1"))
    followed.follow()
    publish(installation, tmp_path, name="scorer-2", seed=2)
    followed.follow()
    assert followed.refused == {}
    active = followed.active("default")
    assert active is not None
    followed.follow()
    assert followed.active("default") is active  # not loaded again
