"""What the routes need of the router behind them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from registry.clock import Clock, new_id, utc_now
from registry.crypto import Keyring, load_keyring
from registry.db import Database
from registry.settings import Settings
from serving.answering import Answerer
from serving.jobs import Models
from serving.last_view import LastView
from serving.metrics import Metrics, metrics_folder
from serving.recorder import Recorder
from serving.schemas import Limits
from serving.shadow import Shadows
from serving.spool import Spool
from serving.state import ROUTER, Poller, Reporter, RouterState

PATIENCE_S = 0.5
"""How long an answer may wait for a locked database before it goes to the spool."""


@dataclass(frozen=True)
class Service:
    """One router's parts, and their beginning and end."""

    settings: Settings
    database: Database
    keyring: Keyring
    recorder: Recorder
    metrics: Metrics
    state: RouterState
    answerer: Answerer
    shadows: Shadows
    reporter: Reporter
    poller: Poller

    def start(self) -> None:
        """Begin to follow the state and to write, on the running event loop."""
        self.poller.start()
        self.recorder.start()

    async def stop(self) -> None:
        """Write down what waits, and sign off."""
        await self.poller.stop()
        await self.answerer.finish()
        await self.shadows.stop()
        await self.recorder.stop()
        await asyncio.to_thread(self.reporter.forget)
        self.database.close()

    @property
    def limits(self) -> Limits:
        """Limits on bodies."""
        serving = self.settings.serving
        return Limits(max_text_chars=serving.max_text_chars, max_new_tokens=serving.max_new_tokens)


def make_service(
    settings: Settings,
    make_models: Callable[[RouterState], Models],
    *,
    replica_id: str,
    clock: Clock = utc_now,
) -> Service:
    """A router on the settings' registry; `make_models` reaches its model replicas."""
    database = Database(settings.resolved_database_url, patience_s=PATIENCE_S)
    keyring = load_keyring(settings.home)
    spool = Spool(settings.home / "spool", max_bytes=settings.serving.spool_max_bytes)
    metrics = Metrics(metrics_folder(settings.home))
    recorder = Recorder(database, keyring, spool=spool, metrics=metrics, clock=clock)
    reporter = Reporter(database, replica_id=replica_id, kind=ROUTER)
    state = RouterState(database, reporter, last_view=LastView(settings.home / "run"))
    models = make_models(state)
    shadows = Shadows(
        models=models,
        recorder=recorder,
        state=state,
        settings=settings,
        metrics=metrics,
        clock=clock,
        make_id=new_id,
    )
    return Service(
        settings=settings,
        database=database,
        keyring=keyring,
        recorder=recorder,
        metrics=metrics,
        state=state,
        answerer=Answerer(
            models=models,
            recorder=recorder,
            state=state,
            settings=settings,
            shadows=shadows,
            clock=clock,
        ),
        shadows=shadows,
        reporter=reporter,
        poller=Poller(state.refresh, interval_s=settings.serving.poll_interval_s),
    )


# A plain function would be sent to a thread, for each request.
async def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


ServiceDep = Annotated[Service, Depends(_service)]
