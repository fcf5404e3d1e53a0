"""A whole router in one process: the HTTP application, a recorder, and a model worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from registry.settings import Settings
from serving.api.app import create_api
from serving.api.service import Service, make_service
from serving.jobs import Job, Models, Reply
from serving.routing import Role
from serving.state import ReplicaState, Reporter, RouterState
from serving.worker import ModelWorker, make_worker


@dataclass
class LocalModels:
    """Model replicas as one worker in this process; `broken` roles fail on demand."""

    worker: ModelWorker
    failures: dict[Role, Reply] = field(default_factory=dict)
    delay_s: dict[Role, float] = field(default_factory=dict)
    jobs: list[tuple[Role, Job]] = field(default_factory=list)

    async def generate(self, job: Job, *, role: Role) -> Reply:
        self.jobs.append((role, job))
        await asyncio.sleep(self.delay_s.get(role, 0))
        return self.failures.get(role) or await self.worker.generate(job)


@dataclass
class Router:
    """A running router."""

    client: httpx.AsyncClient
    service: Service
    models: LocalModels
    replica: ReplicaState

    async def follow(self) -> None:
        """Have replica and router look at the desired state, one after the other."""
        await asyncio.to_thread(self.replica.refresh)
        await self.service.state.refresh()

    async def generate(self, **body: object) -> httpx.Response:
        return await self.client.post("/api/generate", json={"text": "Write an email"} | body)


@asynccontextmanager
async def running_router(settings: Settings) -> AsyncIterator[Router]:
    """Starts everything, and stops it at the end."""
    models = LocalModels(make_worker(settings))
    service = make_service(settings, lambda _state: _as_models(models), replica_id="router-1")
    reporter = Reporter(service.database, replica_id="model-1", kind="champion")
    replica = ReplicaState(service.database, models.worker.keeper, reporter)
    models.worker.start()
    app = create_api(service)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://router",
        ) as client,
    ):
        router = Router(client, service, models, replica)
        await router.follow()
        yield router
    await models.worker.stop()


def _as_models(models: LocalModels) -> Models:
    return models


__all__ = ["LocalModels", "Router", "RouterState", "running_router"]
