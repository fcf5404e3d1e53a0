"""[ray] The model replicas, and how a router reaches them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from registry.db import Database
from registry.settings import ServingSettings, Settings
from serving.calls import OVERLOADED, Calls, JobsUnderWay, Line, Pieces
from serving.errors import EngineError, GoneError
from serving.jobs import Delta, Job, Models, Reply
from serving.last_view import LastView
from serving.logs import configure_logs
from serving.routing import Role
from serving.state import HEARTBEAT_S, Poller, ReplicaState, Reporter, RouterState

CHAMPION = "champion"
CHALLENGER = "challenger"
MAX_ATTEMPTS = 6
RETRY_PAUSE_S = 0.05
UNREACHABLE = Reply(status="unreachable", detail="every replica that was asked has died")
QUEUED_BATCHES = 10
TELLING_S = 10.0
PATIENCE_S = 2.0
"""How long a report may wait for a locked database; the next one comes soon."""


class ModelReplica:
    """One process with the base model and all live adapters."""

    # Serve awaits a coroutine here, on the event loop that the batches need.
    async def __init__(self, settings: Settings, kind: str) -> None:  # type: ignore[misc]
        # torch is imported only where a model runs: routers stay small and start fast.
        from serving.worker import make_worker

        configure_logs(settings.log)
        self._database = Database(settings.resolved_database_url, patience_s=PATIENCE_S)
        self._worker = await asyncio.to_thread(make_worker, settings)
        self._jobs = JobsUnderWay(self._worker.generate, max_jobs=max_jobs(settings.serving))
        self._reporter = Reporter(self._database, replica_id=replica_id(), kind=kind)
        last_view = LastView(settings.home / "run")
        state = ReplicaState(
            self._database, self._worker.keeper, self._reporter, last_view=last_view
        )
        # Before the first request: what is live is loaded.
        await asyncio.to_thread(state.begin)
        self._worker.start()
        self._pollers = [
            Poller(
                lambda: asyncio.to_thread(state.refresh),
                interval_s=settings.serving.poll_interval_s,
            ),
            # Who takes long to load a new version must not be taken for dead.
            Poller(
                lambda: asyncio.to_thread(state.report),
                interval_s=HEARTBEAT_S,
                fault="what is loaded cannot be reported",
            ),
        ]
        for poller in self._pollers:
            poller.start()

    async def generate(self, jobs: Mapping[str, Job]) -> AsyncIterator[dict[str, Reply]]:
        """Answer jobs, each reply once it is done. Serve closes it when the router does."""
        async with aclosing(self._jobs.answer(jobs)) as replies:
            async for some in replies:
                yield some

    # Serve has what is no coroutine run by a thread, where tasks must not be touched.
    async def abandon(self, names: Sequence[str]) -> None:
        """End these jobs: their callers have left, others of the same call wait."""
        self._jobs.abandon(names)

    async def stream(self, job: Job) -> AsyncIterator[Delta | Reply]:
        """Answer a job piece by piece: deltas, then the reply."""
        async with aclosing(self._worker.stream(job)) as events:
            async for event in events:
                yield event

    def check_health(self) -> None:
        """Serve replaces a replica that raises here."""
        if not self._worker.alive:
            raise EngineError("the engine's thread has ended")

    async def __del__(self) -> None:
        """Serve awaits it when the replica is stopped in order."""
        await asyncio.gather(*(poller.stop() for poller in self._pollers))
        await self._worker.stop()
        await asyncio.to_thread(self._reporter.forget)
        self._database.close()


class HandleLine(Line):
    """The way to the replicas of one kind, by Serve's handle."""

    def __init__(self, handle: DeploymentHandle[Any], kind: str, state: RouterState) -> None:
        self._handle = handle
        # Naming a method makes a new handle, which each call would pay for.
        self._generate = handle.options(stream=True).generate
        self._kind = kind
        self._state = state

    @property
    def num_replicas(self) -> int:
        """Those that are known to live."""
        return self._state.count(self._kind)

    def generate(self, jobs: Mapping[str, Job]) -> Pieces:
        """Have one replica answer; Serve reads `jobs` when it sends them."""
        return cast(Pieces, self._generate.remote(jobs))

    async def abandon(self, names: Sequence[str]) -> None:
        """Tell all replicas: which has them is not known here."""
        told: Any = self._handle.broadcast("abandon", names)
        await told.results_async(timeout_s=TELLING_S)


class ReplicaHandles(Models):
    """Sends jobs to replicas; where one dies, another takes the job over.

    Both deployments hold all live versions, so either can stand in for the other.
    """

    def __init__(
        self,
        *,
        champion: DeploymentHandle[Any],
        challenger: DeploymentHandle[Any],
        state: RouterState,
    ) -> None:
        handles = {CHAMPION: champion, CHALLENGER: challenger}
        self._calls = {
            kind: Calls(HandleLine(handle, kind, state)) for kind, handle in handles.items()
        }
        self._stream = {
            kind: handle.options(stream=True).stream for kind, handle in handles.items()
        }
        self._state = state

    async def generate(self, job: Job, *, role: Role) -> Reply:
        """Have `job` answered; "unreachable" when no replica lives to do it."""
        async for kind in self._attempts(role):
            try:
                async with self._state.waits.on(kind):
                    return await self._calls[kind].generate(job)
            except GoneError:
                continue
            except BackPressureError:
                return OVERLOADED
            except RayActorError:
                self._state.lose(kind)
        return UNREACHABLE

    async def stream(self, job: Job, *, role: Role) -> AsyncIterator[Delta | Reply]:
        """The same, piece by piece. A replica lost after the first piece fails the job."""
        async for kind in self._attempts(role):
            pieces: Any = self._stream[kind].remote(job)
            begun = False
            try:
                async with self._state.waits.on(kind):
                    piece = await anext(pieces, None)
                while piece is not None:
                    begun = True
                    yield piece
                    piece = await anext(pieces, None)
                return
            except GoneError:
                continue
            except BackPressureError:
                yield OVERLOADED
                return
            except RayActorError:
                self._state.lose(kind)
                if begun:
                    yield Reply(status="failed", detail="the replica died in mid-answer")
                    return
            finally:
                # Closed or cancelled: without this the replica would write on for nobody.
                pieces.cancel()
        yield UNREACHABLE

    async def _attempts(self, role: Role) -> AsyncIterator[str]:
        """Which deployment to ask, again and again; the asker breaks off at an answer."""
        first = CHALLENGER if role == "challenger" else CHAMPION
        second = CHAMPION if first == CHALLENGER else CHALLENGER
        for _ in range(MAX_ATTEMPTS):
            asked_at = time.monotonic()
            yield first if self._state.has(first) or not self._state.has(second) else second
            if time.monotonic() - asked_at < RETRY_PAUSE_S:
                await asyncio.sleep(RETRY_PAUSE_S)


def max_jobs(serving: ServingSettings) -> int:
    """How many jobs a replica may hold, those that wait among them."""
    return serving.max_batch_size * QUEUED_BATCHES


def replica_id() -> str:
    """The id that Serve gave this replica."""
    context: Any = serve.get_replica_context()
    return str(context.replica_id.to_full_id_str())
