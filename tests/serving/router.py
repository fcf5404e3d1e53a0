"""A whole router in one process: the HTTP application, a recorder, and a model worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from registry.models import UserInteraction
from registry.settings import Settings
from serving.api.app import create_api
from serving.api.service import Service, make_service
from serving.jobs import Delta, Job, Models, Reply
from serving.routing import Role
from serving.state import ReplicaState, Reporter, RouterState
from serving.worker import ModelWorker, make_worker
from tests.serving.conftest import Installation

PATIENT_S = 20.0
"""A disk that stalls for a second is no outage to a test of something else."""


@dataclass
class LocalModels:
    """Model replicas as one worker in this process; `broken` roles fail on demand."""

    worker: ModelWorker
    failures: dict[Role, Reply] = field(default_factory=dict)
    delay_s: dict[Role, float] = field(default_factory=dict)
    jobs: list[tuple[Role, Job]] = field(default_factory=list)
    pause_s: float = 0.0
    """Between the pieces of a stream."""
    pieces_before_failure: int = 0
    num_cancelled: int = 0
    num_answered: int = 0

    async def generate(self, job: Job, *, role: Role) -> Reply:
        self.jobs.append((role, job))
        try:
            await asyncio.sleep(self.delay_s.get(role, 0))
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        reply = self.failures.get(role) or await self.worker.generate(job)
        self.num_answered += 1
        return reply

    async def stream(self, job: Job, *, role: Role) -> AsyncIterator[Delta | Reply]:
        """The whole text in several deltas; `failures` come after `pieces_before_failure`."""
        self.jobs.append((role, job))
        try:
            await asyncio.sleep(self.delay_s.get(role, 0))
            reply = await self.worker.generate(job)
            failure = self.failures.get(role)
            for number, character in enumerate(reply.text):
                if failure is not None and number >= self.pieces_before_failure:
                    break
                yield Delta(character)
                await asyncio.sleep(self.pause_s)
            yield failure or reply
        except (asyncio.CancelledError, GeneratorExit):
            self.num_cancelled += 1
            raise


@dataclass
class Router:
    """A running router."""

    client: httpx.AsyncClient
    service: Service
    models: LocalModels
    replica: ReplicaState
    app: FastAPI

    async def follow(self) -> None:
        """Have replica and router look at the desired state, one after the other."""
        await asyncio.to_thread(self.replica.refresh)
        await self.service.state.refresh()

    async def begin(self) -> None:
        """The first look, repeated as real ones are where a disk stalls."""
        while True:
            try:
                return await self.follow()
            except OperationalError:
                await asyncio.sleep(0.1)

    async def generate(self, **body: object) -> httpx.Response:
        return await self.client.post("/api/generate", json={"text": "Write an email"} | body)


@dataclass
class Live:
    """A router that real clients reach over a socket."""

    url: str
    service: Service
    models: LocalModels
    _replica: ReplicaState
    _loop: asyncio.AbstractEventLoop

    def follow(self) -> None:
        """Have replica and router look at the desired state, one after the other."""
        self._replica.refresh()
        asyncio.run_coroutine_threadsafe(self.service.state.refresh(), self._loop).result(30)

    def finish(self) -> None:
        """Return when the failures of requests that have ended are written down."""
        asyncio.run_coroutine_threadsafe(self.service.answerer.finish(), self._loop).result(30)


@dataclass(frozen=True)
class _Parts:
    models: LocalModels
    service: Service
    replica: ReplicaState
    app: FastAPI


def _make(settings: Settings, *, name: str = "1", patience_s: float = PATIENT_S) -> _Parts:
    models = LocalModels(make_worker(settings))
    service = make_service(
        settings,
        lambda _state: _as_models(models),
        replica_id=f"router-{name}",
        patience_s=patience_s,
    )
    reporter = Reporter(service.database, replica_id=f"model-{name}", kind="champion")
    replica = ReplicaState(service.database, models.worker.keeper, reporter)
    return _Parts(models, service, replica, create_api(service))


@asynccontextmanager
async def running_router(
    settings: Settings, *, name: str = "1", patience_s: float = PATIENT_S
) -> AsyncIterator[Router]:
    """Starts everything, and stops it at the end."""
    parts = _make(settings, name=name, patience_s=patience_s)
    parts.models.worker.start()
    async with (
        parts.app.router.lifespan_context(parts.app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(parts.app, raise_app_exceptions=False),
            base_url="http://127.0.0.1",
        ) as client,
    ):
        router = Router(client, parts.service, parts.models, parts.replica, parts.app)
        await router.begin()
        yield router
    await parts.models.worker.stop()


@contextmanager
def live_router(settings: Settings) -> Iterator[Live]:
    """A router behind uvicorn, on a free port of loopback, in a thread of its own."""
    with ThreadPoolExecutor(1, thread_name_prefix="router") as pool:
        begun: Future[tuple[Live, uvicorn.Server]] = Future()
        served = pool.submit(lambda: asyncio.run(_serve(settings, begun)))
        served.add_done_callback(lambda ended: _pass_on(ended, begun))
        live, server = begun.result(60)
        try:
            live.follow()
            yield live
        finally:
            server.should_exit = True
            served.result(60)


def rows(installation: Installation) -> list[UserInteraction]:
    """All rows that are kept."""
    with installation.database.read() as session:
        return list(session.exec(select(UserInteraction)).all())


def assert_problem(response: httpx.Response, status: int, field: str | None = None) -> Any:
    """The body of a refusal, which must name `field`."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    body = response.json()
    assert body["status"] == status
    assert body["title"]
    if field is not None:
        assert body["field"] == field, body
        assert field in body["detail"] or field == "body", body
    return body


async def _serve(settings: Settings, begun: Future[tuple[Live, uvicorn.Server]]) -> None:
    parts = _make(settings)
    parts.models.worker.start()
    server = uvicorn.Server(
        uvicorn.Config(parts.app, lifespan="on", ws="none", log_level="warning")
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        loop = asyncio.get_running_loop()
        live = Live(url, parts.service, parts.models, parts.replica, loop)
        begun.set_result((live, server))
        await server.serve(sockets=[listener])
    await parts.models.worker.stop()


def _pass_on(ended: Future[None], begun: Future[tuple[Live, uvicorn.Server]]) -> None:
    error = ended.exception()
    if error is not None and not begun.done():
        begun.set_exception(error)


def _as_models(models: LocalModels) -> Models:
    return models


__all__ = [
    "Live",
    "LocalModels",
    "Router",
    "RouterState",
    "assert_problem",
    "live_router",
    "rows",
    "running_router",
]
