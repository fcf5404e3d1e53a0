"""Interactions from elsewhere of users who have gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from registry import erasure
from registry.clock import utc_now
from tests.serving.api.test_interactions import batch, item, post, rows
from tests.serving.conftest import Installation
from tests.serving.router import Router, running_router


@pytest.fixture
async def router(installation: Installation) -> AsyncIterator[Router]:
    async with running_router(installation.settings) as router:
        yield router


async def test_what_an_erased_user_asked_before_is_refused_for_good(
    router: Router, installation: Installation
) -> None:
    """A client would offer anything else again, and what is behind it never."""
    erased_at = utc_now() - timedelta(hours=1)
    with installation.database.write() as session:
        act = replace(installation.act(), now=erased_at)
        erasure.begin(session, act, "ann", approved_by="test", policy="list")
    before, after = ((erased_at + timedelta(minutes=by)).isoformat() for by in (-5, 5))
    told = await batch(
        router,
        item(id="rated", user_id="ann", created_at=before, feedback={"score": 5}),
        item(id="before", user_id="ann", created_at=before),
        item(id="after", user_id="ann", created_at=after, feedback={"score": 5}),
        item(id="ben's", user_id="ben", created_at=before),
    )
    statuses = [(result["error"] or {}).get("status") for result in told["results"]]
    assert statuses == [410, 410, None, None]
    assert set(rows(installation)) == {"after", "ben's"}
    alone = await post(router, item(user_id="ann", created_at=before))
    assert (alone.status_code, alone.json()["field"]) == (410, "user_id")
    described = (await router.client.get("/openapi.json")).json()["paths"]["/api/interactions"]
    assert "410" in described["post"]["responses"]
