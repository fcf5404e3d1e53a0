"""The administrative routes: they act on the registry and on Prefect, and everything is audited."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import select

from registry import audit, interactions
from registry.clock import utc_now
from registry.deployment import AUDIT_PURPOSE
from registry.interactions import Feedback, Interaction
from registry.models import AuditEntry
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router
from tests.support.fake_prefect import FakePrefect, fake_prefect


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


async def get(router: Router, path: str, **params: Any) -> Any:
    response = await router.client.get(f"/api/admin/{path}", params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def act(router: Router, path: str, body: object = None, *, method: str = "POST") -> Any:
    response = await router.client.request(method, f"/api/admin/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def refusal(router: Router, path: str, body: object = None, *, method: str = "POST") -> Any:
    response: httpx.Response = await router.client.request(method, f"/api/admin/{path}", json=body)
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code


async def test_a_trial_is_steered_and_ended_by_hand(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    one, two = (installation.register(adapters[name]) for name in ("one", "two"))
    assert (await act(router, f"versions/{one}/promote"))["champion"] == one
    trial = installation.try_out(two, share=0.25)
    paused = await act(router, "experiment/pause", {"reason": "it looks odd"})
    assert (paused["share"], paused["challenger"]) == (0.0, two)
    assert (await get(router, "status"))["status"]["paused"]
    assert await refusal(router, "experiment/pause") == 409
    assert (await act(router, "experiment/freeze", {"reason": "a launch"}))["share"] == 0
    assert await refusal(router, "experiment/freeze") == 409
    await act(router, "experiment/unfreeze", {})
    assert (await act(router, "experiment/resume"))["share"] == 0.25
    assert await refusal(router, "experiment/resume") == 409
    assert (await act(router, "experiment/share", {"share": 0.5}, method="PUT"))["share"] == 0.5
    assert (await get(router, "status"))["status"]["experiment_id"] == trial.id
    promoted = await act(router, f"versions/{two}/promote", {"reason": "convinced"})
    assert (promoted["champion"], promoted["challenger"]) == (two, None)
    rolled_back = await act(router, "rollback", {"workload": "kalimtak"})
    assert (rolled_back["champion"], rolled_back["status"]) == (one, "success")
    with installation.database.read() as session:
        entries = session.exec(select(AuditEntry).order_by(AuditEntry.sequence)).all()
        assert audit.verify(session, key=installation.keyring.derive(AUDIT_PURPOSE)) is None
    by_api = [entry for entry in entries if entry.actor.startswith("api:")]
    assert [entry.action for entry in by_api] == [
        "deploy",
        "pause_experiment",
        "freeze_experiment",
        "unfreeze_experiment",
        "resume_experiment",
        "set_share",
        "promote",
        "roll_back",
    ]
    assert by_api[1].details["reason"] == "it looks odd"


async def test_what_cannot_be_done_is_a_problem(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    assert await refusal(router, "rollback") == 409
    assert await refusal(router, "versions/no-such/promote") == 404
    assert await refusal(router, "experiment/pause") == 404
    assert await refusal(router, "experiment/share", {"share": 0}, method="PUT") == 422
    assert await refusal(router, "experiment/share", {"share": 1.5}, method="PUT") == 422
    assert await refusal(router, "rollback", {"workload": "no-such"}) == 404
    assert await refusal(router, "rollback", {"colour": "red"}) == 422
    one, two, three = (installation.register(adapters["one"]) for _ in range(3))
    installation.deploy(one)
    installation.try_out(two, share=0.5)
    assert await refusal(router, f"versions/{three}/promote") == 409


async def test_an_act_may_say_what_its_caller_saw(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    one, two = (installation.register(adapters[name]) for name in ("one", "two"))
    for version in (one, two):
        seen = await act(router, f"versions/{version}/promote")
    twice = {"reason": "complaints", "generation": seen["generation"]}
    assert (await act(router, "rollback", twice))["champion"] == one
    # Sent again, it would take back the champion before as well.
    assert await refusal(router, "rollback", twice) == 409
    assert await refusal(router, f"versions/{two}/promote", {"generation": 0}) == 409
    assert await refusal(router, f"versions/{one}/promote") == 409
    assert (await get(router, "status"))["status"]["champion_model"] == one


@pytest.mark.both_databases
async def test_names_that_no_database_takes_are_refused(router: Router) -> None:
    for method, path in (
        ("GET", "admin/versions/%00"),
        ("POST", "admin/versions/%00/promote"),
        ("GET", "review/explain/%00"),
    ):
        response = await router.client.request(method, f"/api/{path}")
        assert response.status_code == 422, (path, response.text)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "x"])
async def test_a_cursor_of_nobodys_is_refused(router: Router, moment: str) -> None:
    cursor = base64.urlsafe_b64encode(f"{moment}|x".encode()).decode()
    for path in ("admin/versions", "history/ann", "review/queue"):
        response = await router.client.get(f"/api/{path}", params={"cursor": cursor})
        assert response.status_code == 422, (path, response.text)


async def test_versions_are_listed_page_by_page(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    names = {installation.register(adapters["one"]) for _ in range(5)}
    found, cursor = [], None
    while cursor is not None or not found:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = await get(router, "versions", **params)
        found += [version["version"] for version in page["versions"]]
        cursor = page["next"]
    assert len(found) == 5
    assert set(found) == names
    one = await get(router, f"versions/{found[0]}")
    assert (one["version"], one["deployment_status"]) == (found[0], "registered")
    assert (await router.client.get("/api/admin/versions/no-such")).status_code == 404


async def test_candidates_are_what_curation_would_accept(
    router: Router, installation: Installation
) -> None:
    now = utc_now()
    wanted = [("good", 0.9, Feedback(interaction_id="good", score=5))]
    wanted += [("fixed", 0.1, Feedback(interaction_id="fixed", corrected_output="Role: x"))]
    other = [("dull", 0.2, Feedback(interaction_id="dull", score=5))]
    other += [("bad", 0.9, Feedback(interaction_id="bad", score=1))]
    with installation.database.write() as session:
        for number, (name, quality, feedback) in enumerate(wanted + other):
            row = Interaction(
                id=name,
                created_at=now,
                input_text=name,
                structured_prompt=name,
                model_output=name,
                quality_score=quality,
            )
            interactions.log(session, [row], keyring=installation.keyring)
            at = now + timedelta(seconds=number)
            interactions.add_feedback(session, feedback, now=at, new_id=lambda n=number: f"f{n}")
    first = await get(router, "training-data-candidates", limit=1)
    second = await get(router, "training-data-candidates", limit=1, cursor=first["next"])
    shown = [page["candidates"][0] for page in (first, second)]
    assert [row["interaction_id"] for row in shown] == ["fixed", "good"]
    assert (shown[0]["corrected_output"], shown[1]["feedback_score"]) == ("Role: x", 5)
    assert not shown[0]["is_curated"]
    assert second["next"] is None


async def test_the_status_tells_the_seeds_figures_and_who_follows(
    router: Router, installation: Installation, adapters: dict[str, Path]
) -> None:
    await router.generate()
    found = await get(router, "status")
    base = installation.settings.training.base_model
    assert found["usage_stats"]["total"] == 1
    assert (found["status"]["champion_model"], found["status"]["total_retrains"]) == (base, 0)
    installation.deploy(installation.register(adapters["one"]))
    await router.follow()
    found = await get(router, "status")
    assert {replica["generation"] for replica in found["replicas"]} == {1}
    assert {replica["kind"] for replica in found["replicas"]} == {"router", "champion"}


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Any:
    with fake_prefect() as server:
        monkeypatch.setenv("PREFECT_API_URL", server.url)
        yield server


async def test_curation_and_training_are_started_on_prefect(
    prefect: FakePrefect, installation: Installation
) -> None:
    async with running_router(installation.settings) as router:
        curated = await act(router, "curate-training-data")
        said = {"workload": "default", "force": True, "reason": "new texts"}
        trained = await act(router, "train-model", said)
    assert curated == {
        "status": "started",
        "message": "curate/daily runs as 'fast-owl'",
        "flow_run_id": "run-1",
        "flow_run_url": f"{prefect.url.removesuffix('/api')}/runs/flow-run/run-1",
    }
    assert trained["flow_run_id"] == "run-2"
    asked = {"workload": "default", "trigger": "manual", "force": True, "dry_run": False}
    assert prefect.started == [
        ("curate/daily", {"workload": "default", "dry_run": False}),
        ("retrain/weekly", asked),
    ]
    with installation.database.read() as session:
        reasons = [entry.details["reason"] for entry in audit.entries(session, limit=2)]
    assert sorted(reasons) == ["by hand, over the API", "new texts"]


async def test_a_prefect_server_with_a_password_is_shown_it(
    prefect: FakePrefect, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect.password = "admin:s3cret"
    async with running_router(installation.settings) as router:
        refused = await router.client.post("/api/admin/train-model")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:s3cret")
    async with running_router(installation.settings) as router:
        assert (await act(router, "train-model"))["status"] == "started"


async def test_a_prefect_server_that_is_away_is_a_503(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    async with running_router(installation.settings) as router:
        assert await refusal(router, "train-model") == 503
