"""[ray] A router with a model that answers at once, and the least that Serve could do instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from registry.clock import utc_now
from registry.db import Database
from registry.settings import Settings
from serving.app import QUIET, ROUTER_MAX_ONGOING, RouterBase, prepare
from serving.calls import JobsUnderWay
from serving.jobs import Delta, Job, Reply
from serving.replica import replica_id
from serving.state import Poller, ReplicaState, Reporter

MAX_ONGOING = 1_000
TEXT = "**Role**: a friendly writer\n**Task**: write an email"


class NoKeeper:
    """Has every adapter without loading any."""

    def __init__(self) -> None:
        self.loaded: Mapping[str, str] = {}
        self.refused: Mapping[str, str] = {}

    def follow(self, live: Mapping[str, str]) -> None:
        """Hold what is live."""
        self.loaded = live


class NoModel:
    """Stands where a model replica stands."""

    def __init__(self, settings: Settings, kind: str) -> None:
        database = Database(settings.resolved_database_url)
        reporter = Reporter(database, replica_id=replica_id(), kind=kind)
        state = ReplicaState(database, NoKeeper(), reporter)
        state.refresh()
        self._poller = Poller(
            lambda: asyncio.to_thread(state.refresh), interval_s=settings.serving.poll_interval_s
        )
        self._is_polling = False
        self._jobs = JobsUnderWay(self._reply, max_jobs=MAX_ONGOING)

    async def generate(self, jobs: Mapping[str, Job]) -> AsyncIterator[dict[str, Reply]]:
        """Answer at once."""
        async for replies in self._jobs.answer(jobs):
            yield replies

    async def abandon(self, names: Sequence[str]) -> None:
        """End what nobody waits for."""
        self._jobs.abandon(names)

    async def _reply(self, _job: Job) -> Reply:
        if not self._is_polling:
            self._is_polling = True
            self._poller.start()
        return Reply(status="ok", text=TEXT, tokens_input=10, tokens_output=12)

    async def stream(self, job: Job) -> AsyncIterator[Delta | Reply]:
        """The same in one piece."""
        yield Delta(TEXT)
        yield await self._reply(job)

    async def answer(self) -> dict[str, str]:
        """What the bare ingress asks for."""
        return {"text": TEXT}


class BareIngress:
    """Reads nothing, checks nothing, keeps nothing: one call of a model per request."""

    def __init__(self, models: DeploymentHandle[Any]) -> None:
        self._models = models

    async def __call__(self, _request: Request) -> Response:
        """Pass one request on."""
        return JSONResponse(await self._models.answer.remote())


def router_app(settings: Settings) -> Application:
    """The product's router on models that answer at once."""
    prepare(settings)
    options: dict[str, Any] = {
        "max_ongoing_requests": MAX_ONGOING,
        "ray_actor_options": {"num_cpus": 0},
    }
    champion, challenger = (
        serve.deployment(name=kind.title(), logging_config=QUIET, **options)(NoModel).bind(
            settings, kind
        )
        for kind in ("champion", "challenger")
    )
    router = serve.deployment(
        name="Router",
        num_replicas=settings.serving.num_routers,
        max_ongoing_requests=ROUTER_MAX_ONGOING,
        ray_actor_options={"num_cpus": 0},
        logging_config=QUIET,
    )(serve.ingress()(RouterBase))
    application: Application = router.bind(settings, utc_now, champion, challenger)
    return application


def bare_app(settings: Settings) -> Application:
    """The same shape with nothing in it; Serve's own access log is off there too."""
    options: dict[str, Any] = {
        "max_ongoing_requests": MAX_ONGOING,
        "ray_actor_options": {"num_cpus": 0},
        "logging_config": QUIET,
    }
    models = serve.deployment(name="BareModel", **options)(NoModel).bind(settings, "champion")
    ingress = serve.deployment(
        name="BareIngress", num_replicas=settings.serving.num_routers, **options
    )(BareIngress)
    application: Application = ingress.bind(models)
    return application
