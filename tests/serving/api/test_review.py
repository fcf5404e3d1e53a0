"""The reviewers' queue over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from registry import interactions, people, review
from registry.clock import new_id, utc_now
from registry.interactions import Interaction
from registry.models import AuditEntry, FeedbackEvent, UserInteraction
from registry.settings import Settings
from registry.settings_access import AuthSettings
from serving.access.tokens import make_signer, make_token
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


def log(installation: Installation, **reasons: tuple[str, str]) -> None:
    """Answers by name, each queued for its kind and reason."""
    with installation.database.write() as session:
        for name, (kind, why) in reasons.items():
            row = Interaction(
                id=name,
                created_at=utc_now(),
                input_text="write a mail",
                structured_prompt=f"Role: {name}",
                model_output=f"Role: {name}",
                external_user_id="alice",
                quality_score=0.5,
                scorer_version="rule-1",
            )
            interactions.log(session, [row], keyring=installation.keyring)
            review.add(
                session,
                workload="default",
                kind=kind,
                reasons={name: why},
                now=utc_now(),
                new_id=new_id,
            )


async def queue(router: Router, **params: Any) -> Any:
    response = await router.client.get("/api/review/queue", params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def decide(router: Router, item_id: str, **body: Any) -> Any:
    return await router.client.post(f"/api/review/{item_id}", json=body)


async def test_the_queue_is_read_page_by_page_and_by_kind(
    router: Router, installation: Installation
) -> None:
    log(
        installation,
        a=("quarantine", "a burst"),
        b=("informative", "unsure"),
        c=("injection", "orders"),
    )
    first = await queue(router, limit=2)
    rest = await queue(router, limit=2, cursor=first["next"])
    shown = [(item["interaction_id"], item["kind"]) for item in first["items"] + rest["items"]]
    assert shown == [("a", "quarantine"), ("b", "informative"), ("c", "injection")]
    assert rest["next"] is None
    [only] = (await queue(router, kind="injection"))["items"]
    assert (only["reason"], only["model_output"]) == ("injection: orders", "Role: c")
    assert (only["state"], only["scorer_version"]) == ("pending", "rule-1")


async def test_a_decision_on_an_unrated_answer_is_its_label(
    router: Router, installation: Installation
) -> None:
    log(installation, good=("informative", "unsure"), bad=("informative", "unsure"))
    items = {item["interaction_id"]: item["id"] for item in (await queue(router))["items"]}
    assert (await decide(router, items["good"], decision="accepted")).status_code == 200
    answer = await decide(
        router, items["bad"], decision="rejected", corrected_output="Role: better", score=1
    )
    assert answer.json() == {
        "status": "success",
        "message": "Decision recorded",
        "id": items["bad"],
        "state": "rejected",
    }
    with installation.database.read() as session:
        good, bad = (session.get(UserInteraction, name) for name in ("good", "bad"))
        assert good is not None
        assert bad is not None
        assert (good.user_feedback, good.feedback_score) == (1, None)
        assert (bad.user_feedback, bad.corrected_output) == (-1, "Role: better")
        assert all(event.is_review for event in session.exec(select(FeedbackEvent)))
        acts = session.exec(select(AuditEntry)).all()
    assert [entry.details["kind"] for entry in acts] == ["informative", "informative"]
    assert (await queue(router))["items"] == []
    assert len((await queue(router, state="accepted"))["items"]) == 1


async def test_releasing_feedback_says_nothing_of_the_answer(
    router: Router, installation: Installation
) -> None:
    log(installation, a=("quarantine", "a burst"))
    [item] = (await queue(router))["items"]
    assert (await decide(router, item["id"], decision="accepted")).status_code == 200
    assert (await decide(router, item["id"], decision="rejected")).status_code == 409
    with installation.database.read() as session:
        assert session.exec(select(FeedbackEvent)).all() == []
        assert review.held_back(session, workload="default") == set()


async def test_what_cannot_be_decided_is_a_problem(
    router: Router, installation: Installation
) -> None:
    log(installation, a=("quarantine", "a burst"))
    [item] = (await queue(router))["items"]
    for body in (
        {},
        {"decision": "maybe"},
        {"decision": "accepted", "score": 9},
        {"decision": "accepted", "corrected_output": "x" * 400},
        {"decision": "accepted", "colour": "red"},
    ):
        response = await decide(router, item["id"], **body)
        assert response.status_code == 422, response.text
    assert (await decide(router, "gone", decision="accepted")).status_code == 404
    assert (await router.client.get("/api/review/explain/gone")).status_code == 404
    wrong = await router.client.get("/api/review/queue", params={"kind": "colour"})
    assert wrong.status_code == 422


async def test_a_score_is_explained(router: Router, installation: Installation) -> None:
    log(installation, **{"a/7 ü": ("quarantine", "a burst")})
    found = (await router.client.get("/api/review/explain/a%2F7%20ü")).json()
    assert (found["stored_score"], found["scorer_version"]) == (0.5, "rule-1")
    assert {"feature": "Section Task is missing.", "value": 1.0, "effect": -0.15} in found[
        "reasons"
    ]


async def test_only_reviewers_review_and_what_they_say_is_theirs(
    installation: Installation,
) -> None:
    settings = installation.settings.model_copy(update={"auth": AuthSettings(enabled=True)})
    log(installation, a=("informative", "unsure"))
    async with running_router(settings) as router:
        for role, status in (("user", 403), ("reviewer", 200)):
            response = await router.client.get(
                "/api/review/queue", headers=bearer(settings, installation, role)
            )
            assert response.status_code == status
        [item] = response.json()["items"]
        said = await router.client.post(
            f"/api/review/{item['id']}",
            json={"decision": "rejected"},
            headers=bearer(settings, installation, "reviewer"),
        )
        assert said.status_code == 200
        rated = await router.client.post(
            "/api/feedback",
            json={"interaction_id": "a", "thumb": 1},
            headers=bearer(settings, installation, "reviewer"),
        )
        assert rated.status_code == 200
    with installation.database.read() as session:
        raters = {
            (event.rater_id, event.is_review) for event in session.exec(select(FeedbackEvent))
        }
        [entry] = session.exec(select(AuditEntry)).all()
    assert raters == {(installation.keyring.pseudonym("bob"), True)}
    assert entry.actor == people.actor("bob", installation.keyring)


def bearer(settings: Settings, installation: Installation, role: str) -> dict[str, str]:
    token = make_token(
        make_signer(settings.auth, installation.keyring),
        settings.auth,
        subject="bob",
        role=role,
        now=utc_now(),
        lifetime=timedelta(hours=1),
    )
    return {"Authorization": f"Bearer {token}"}
