"""[ray] The model replicas, and how a router reaches them."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from registry.db import Database
from registry.settings import Settings
from serving.jobs import Job, Models, Reply
from serving.last_view import LastView
from serving.logs import configure_logs
from serving.routing import Role
from serving.state import Poller, ReplicaState, Reporter, RouterState

CHAMPION = "champion"
CHALLENGER = "challenger"
MAX_ATTEMPTS = 6
RETRY_PAUSE_S = 0.05
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
        self._reporter = Reporter(self._database, replica_id=replica_id(), kind=kind)
        last_view = LastView(settings.home / "run")
        state = ReplicaState(
            self._database, self._worker.keeper, self._reporter, last_view=last_view
        )
        # Before the first request: what is live is loaded.
        await asyncio.to_thread(state.begin)
        self._worker.start()
        self._poller = Poller(
            lambda: asyncio.to_thread(state.refresh),
            interval_s=settings.serving.poll_interval_s,
        )
        self._poller.start()

    async def generate(self, job: Job) -> Reply:
        """Answer a job."""
        return await self._worker.generate(job)

    async def __del__(self) -> None:
        """Serve awaits it when the replica is stopped in order."""
        await self._poller.stop()
        await self._worker.stop()
        await asyncio.to_thread(self._reporter.forget)
        self._database.close()


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
        self._handles = {CHAMPION: champion, CHALLENGER: challenger}
        self._state = state

    async def generate(self, job: Job, *, role: Role) -> Reply:
        """Have `job` answered; "unreachable" when no replica lives to do it."""
        first = CHALLENGER if role == "challenger" else CHAMPION
        second = CHAMPION if first == CHALLENGER else CHALLENGER
        for _ in range(MAX_ATTEMPTS):
            kind = first if self._state.has(first) or not self._state.has(second) else second
            sent_at = time.monotonic()
            try:
                return cast(Reply, await self._handles[kind].generate.remote(job))
            except BackPressureError:
                return Reply(status="overloaded", detail="too many requests wait for a replica")
            except RayActorError:
                self._state.lose(kind)
            if time.monotonic() - sent_at < RETRY_PAUSE_S:
                await asyncio.sleep(RETRY_PAUSE_S)
        return Reply(status="unreachable", detail="every replica that was asked has died")


def replica_id() -> str:
    """The id that Serve gave this replica."""
    context: Any = serve.get_replica_context()
    return str(context.replica_id.to_full_id_str())
