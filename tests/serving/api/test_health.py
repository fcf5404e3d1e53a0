"""Whether the router runs, and whether it can answer."""

from __future__ import annotations

from registry import deployment
from tests.serving.conftest import Installation
from tests.serving.router import running_router


async def test_readiness_needs_a_model_replica(installation: Installation) -> None:
    async with running_router(installation.settings) as router:
        assert (await router.client.get("/healthz")).json() == {"status": "ok"}
        assert (await router.client.get("/readyz")).json()["status"] == "ready"
        for probe in ("/healthz", "/readyz"):
            seen = await router.client.head(probe)
            assert (seen.status_code, seen.content) == (200, b"")
        with installation.database.write() as session:
            deployment.forget_replica(session, "model-1")
        await router.service.state.refresh()
        unready = await router.client.get("/readyz")
        assert unready.status_code == 503
        assert unready.headers["content-type"] == "application/problem+json"
        assert (await router.client.get("/healthz")).status_code == 200
