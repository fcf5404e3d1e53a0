"""What the routes need of the router behind them."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from sqlalchemy.exc import SQLAlchemyError

from registry import people
from registry.artifacts import ArtifactStore
from registry.clock import Clock, new_id, utc_now
from registry.crypto import Keyring, load_keyring
from registry.db import Database
from registry.deployment import Act, DesiredState
from registry.key_rotation import check_keys
from registry.models import DEFAULT_WORKLOAD
from registry.settings import Settings
from registry.workloads import PRODUCT
from serving import naming
from serving.access.auth import Authenticator, Principal
from serving.access.limits import Limiter
from serving.answering import Answerer
from serving.asking import Client, Sampling
from serving.jobs import Models
from serving.last_view import LastView
from serving.metrics import Metrics, metrics_folder
from serving.naming import Target
from serving.prefect_api import PrefectApi, prefect_api
from serving.problems import ProblemError
from serving.recording.recorder import Recorder
from serving.recording.spool import Spool
from serving.routing import pin
from serving.schemas import Limits
from serving.scoring import Scorers
from serving.shadow import Shadows
from serving.state import ROUTER, Poller, Reporter, RouterState

MAX_USER_AGENT_CHARS = 512
PATIENCE_S = 0.5
"""How long an answer may wait for a locked database before it goes to the spool."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """One router's parts, and their beginning and end."""

    settings: Settings
    database: Database
    keyring: Keyring
    recorder: Recorder
    metrics: Metrics
    state: RouterState
    scorers: Scorers
    answerer: Answerer
    authenticator: Authenticator
    shadows: Shadows
    reporter: Reporter
    poller: Poller
    prefect: PrefectApi
    clock: Clock
    limiter: Limiter

    def start(self) -> None:
        """Begin to follow the state and to write, on the running event loop."""
        self.poller.start()
        self.recorder.start()

    async def stop(self) -> None:
        """Write down what waits, and sign off."""
        await self.poller.stop()
        await self.answerer.finish()
        await self.authenticator.finish()
        await self.shadows.stop()
        await self.recorder.stop()
        await self.limiter.close()
        await asyncio.to_thread(self.reporter.forget)
        self.database.close()

    @property
    def limits(self) -> Limits:
        """Limits on bodies."""
        serving = self.settings.serving
        return Limits(
            max_text_chars=serving.max_text_chars,
            max_chat_chars=serving.max_chat_chars,
            max_new_tokens=serving.max_new_tokens,
        )

    def sampling(self, **asked: Any) -> Sampling:
        """How to draw an answer: what was asked for (None: nothing), else the settings."""
        serving = self.settings.serving
        defaults = {"max_new_tokens": serving.max_new_tokens, "temperature": serving.temperature}
        given = {name: value for name, value in asked.items() if value is not None}
        return Sampling(**{**defaults, **given})

    def act(self, caller: Principal, reason: str) -> Act:
        """What `caller` does to the registry, and why."""
        person = caller.subject
        actor = f"api:{caller.role}" if person is None else people.actor(person, self.keyring)
        return Act(actor, reason, self.clock(), self.keyring, new_id, person)

    def workload(self, name: str | None) -> str:
        """The workload that clients call so; unset, the default one. Raises `ProblemError` 404."""
        workload = DEFAULT_WORKLOAD if name in (None, PRODUCT) else str(name)
        if workload not in self.state.states():
            raise ProblemError(404, f"workload: there is no workload '{name}'", field="workload")
        return workload

    def target(self, model: str) -> Target:
        """What a model name stands for. Raises `ProblemError` 404."""
        base_model = self.settings.training.base_model
        states = self.state.states()
        found = naming.resolve(model, states, base_model=base_model)
        if found is None or not _is_served(found, states, base_model):
            raise ProblemError(
                404,
                f"model: '{model}' is not served here; GET /v1/models lists what is",
                field="model",
                code="model_not_found",
            )
        return found


def make_service(
    settings: Settings,
    make_models: Callable[[RouterState], Models],
    *,
    replica_id: str,
    clock: Clock = utc_now,
    patience_s: float = PATIENCE_S,
) -> Service:
    """A router on the settings' registry; `make_models` reaches its model replicas."""
    database = Database(settings.resolved_database_url, patience_s=patience_s)
    keyring = load_keyring(settings.home, seals_texts=settings.privacy.encrypt_texts)
    _check_keys(database, keyring, now=clock())
    spool = Spool(settings.home / "spool", max_bytes=settings.serving.spool_max_bytes)
    metrics = Metrics(metrics_folder(settings.home))
    recorder = Recorder(database, keyring, spool=spool, metrics=metrics, clock=clock)
    reporter = Reporter(database, replica_id=replica_id, kind=ROUTER)
    scorers = Scorers(
        database, ArtifactStore(settings.resolved_artifacts_url, cache=settings.home / "cache")
    )
    state = RouterState(
        database,
        reporter,
        last_view=LastView(settings.home / "run"),
        refused=lambda: scorers.refused,
    )
    models = make_models(state)
    shadows = Shadows(
        models=models,
        recorder=recorder,
        state=state,
        settings=settings,
        metrics=metrics,
        clock=clock,
        make_id=new_id,
        judged_by=scorers.score,
    )

    async def look() -> None:
        await state.refresh()
        await scorers.refresh()

    return Service(
        settings=settings,
        database=database,
        keyring=keyring,
        recorder=recorder,
        metrics=metrics,
        state=state,
        scorers=scorers,
        answerer=Answerer(
            models=models,
            recorder=recorder,
            state=state,
            settings=settings,
            shadows=shadows,
            judged_by=scorers.score,
            clock=clock,
        ),
        authenticator=Authenticator(settings.auth, database=database, keyring=keyring),
        shadows=shadows,
        reporter=reporter,
        poller=Poller(look, interval_s=settings.serving.poll_interval_s),
        prefect=prefect_api(settings, os.environ),
        clock=clock,
        limiter=Limiter(settings, keyring),
    )


def _is_served(target: Target, states: Mapping[str, DesiredState], base_model: str) -> bool:
    if target.version is None:
        return True
    return pin(states[target.workload], target.version, base_model=base_model) is not None


def _check_keys(database: Database, keyring: Keyring, *, now: datetime) -> None:
    """Raises `KeyringError`. A database that is away is asked before the first row is written."""
    try:
        check_keys(database, keyring, now=now)
    except SQLAlchemyError as error:
        logger.warning("the keys could not be checked yet: %s", type(error).__name__)


def client_of(request: Request, service: Service) -> Client:
    """Where a request came from, if that is kept. Forwarding headers are not looked at: anyone
    can write them."""
    if not service.settings.privacy.client_metadata:
        return Client()
    agent = request.headers.get("user-agent")
    return Client(
        ip_address=request.client.host if request.client else None,
        user_agent=agent[:MAX_USER_AGENT_CHARS] if agent else None,
    )


# A plain function would be sent to a thread, for each request.
async def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


ServiceDep = Annotated[Service, Depends(_service)]
