"""[ray] The Ray Serve application: Router (ingress), Champion, Challenger.

    eval "$(python -m serving.runtime_env)"
    python -m serving.app > serve.yaml && serve run serve.yaml

`serve run serving.app:build [home=… serving.num_routers=4]` works too, but listens where Ray
does by default: port 8000, and the routers' own ports on all interfaces.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from registry import deployment
from registry.clock import Clock, utc_now
from registry.crypto import load_keyring
from registry.db import open_database
from registry.errors import SettingsError
from registry.models import DEFAULT_WORKLOAD
from registry.settings import Settings, load_settings
from serving.access.exposure import refuse_exposed
from serving.metrics import clean_stale, metrics_folder
from serving.replica import (
    CHALLENGER,
    CHAMPION,
    ModelReplica,
    ReplicaHandles,
    max_jobs,
    replica_id,
)

APP_NAME = "kalimtak"
ROUTER_MAX_ONGOING = 1_000
HEALTH_CHECK_PERIOD_S = 2.0
SHUTDOWN_S = 20.0
QUIET = LoggingConfig(enable_access_log=False)
"""Serve's own line for each request and each call; the router writes one that says more."""


class ServeArgs(BaseModel):
    """Arguments of `build`: overrides of the settings, by the settings' own names.

    `serve run` passes `name=value`; a name may be dotted (`serving.num_routers=4`).
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    home: str | None = None
    database_url: str | None = None
    artifacts_url: str | None = None
    serving: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    limits: dict[str, Any] = Field(default_factory=dict)
    log: dict[str, Any] = Field(default_factory=dict)

    def apply(self, settings: Settings) -> Settings:
        """`settings` with these overrides. Raises `SettingsError`."""
        values = settings.model_dump()
        for name, value in self.model_dump(exclude_none=True).items():
            _override(values, name.split("."), value)
        try:
            return Settings.model_validate(values)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(str(part) for part in fault["loc"])
            raise SettingsError(f"serve arguments: {key}: {fault['msg']}") from error


class RouterBase:
    """One router: the HTTP application on its own recorder and view of the state."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        champion: DeploymentHandle[Any],
        challenger: DeploymentHandle[Any],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._handles = {"champion": champion, "challenger": challenger}

    def __serve_build_asgi_app__(self) -> Any:
        from serving.api.app import create_api
        from serving.api.service import make_service
        from serving.logs import configure_logs

        configure_logs(self._settings.log)
        service = make_service(
            self._settings,
            lambda state: ReplicaHandles(**self._handles, state=state),
            replica_id=replica_id(),
            clock=self._clock,
        )
        return create_api(service, behind_serve=True)


def build(args: Mapping[str, Any]) -> Application:
    """The application, as `serve run` and Serve config files name it."""
    return build_app(ServeArgs.model_validate(args).apply(load_settings()))


def build_app(settings: Settings, *, clock: Clock = utc_now) -> Application:
    """The application on `settings`; `clock` dates the interactions and must be picklable.

    Prepares the registry: schema, default workload, key.
    """
    refuse_exposed(settings)
    prepare(settings)
    serving = settings.serving
    champion = _models("Champion", CHAMPION, serving.num_champion_replicas, settings)
    challenger = _models("Challenger", CHALLENGER, serving.num_challenger_replicas, settings)
    router = serve.deployment(
        name="Router",
        num_replicas=serving.num_routers,
        max_ongoing_requests=ROUTER_MAX_ONGOING,
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        graceful_shutdown_timeout_s=SHUTDOWN_S,
        ray_actor_options={"num_cpus": serving.replica_num_cpus},
        logging_config=QUIET,
    )(serve.ingress()(RouterBase))
    application: Application = router.bind(settings, clock, champion, challenger)
    return application


def _models(name: str, kind: str, num_replicas: int, settings: Settings) -> Application:
    serving = settings.serving
    models = serve.deployment(
        name=name,
        num_replicas=num_replicas,
        # Serve counts calls, which may hold several jobs; those the replica counts itself.
        max_ongoing_requests=max_jobs(serving),
        # Of each router; beyond it a request is refused at once.
        max_queued_requests=max_jobs(serving),
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        graceful_shutdown_timeout_s=SHUTDOWN_S,
        ray_actor_options={
            "num_cpus": serving.replica_num_cpus,
            "num_gpus": serving.replica_num_gpus,
        },
        logging_config=QUIET,
    )(ModelReplica)
    application: Application = models.bind(settings, kind)
    return application


def http_options(settings: Settings) -> HTTPOptions:
    """Where Serve listens."""
    return HTTPOptions(host=settings.serving.host, port=settings.serving.port)


def start(settings: Settings, *, clock: Clock = utc_now) -> None:
    """Serve on the Ray cluster that this process has joined; return when it answers."""
    serve.start(http_options=http_options(settings))
    serve.run(build_app(settings, clock=clock), name=APP_NAME, route_prefix="/")


def stop() -> None:
    """Stop what `start` has begun: answers under way are finished first.

    `serve.shutdown` alone takes HAProxy away at once, and open connections with it.
    """
    serve.delete(APP_NAME)
    serve.shutdown()  # type: ignore[no-untyped-call]


def serve_config(settings: Settings) -> dict[str, Any]:
    """The same as a body for PUT /api/serve/applications/ (or, as YAML, for `serve deploy`).

    Secrets are not in it, nor URLs that hold a password: the cluster's own environment or
    settings file has them.
    """
    refuse_exposed(settings)
    arguments = settings.model_dump(
        mode="json",
        include={"home", "database_url", "artifacts_url", "serving", "training", "limits", "log"},
        exclude={"training": {"judge": {"api_key"}}},
    )
    for values, name in (
        (arguments, "database_url"),
        (arguments, "artifacts_url"),
        (arguments["limits"], "storage_url"),
    ):
        if _holds_password(values[name]):
            del values[name]
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": settings.serving.host, "port": settings.serving.port},
        "applications": [
            {
                "name": APP_NAME,
                "route_prefix": "/",
                "import_path": "serving.app:build",
                "args": arguments,
            }
        ],
    }


def _holds_password(url: str | None) -> bool:
    parts = urlsplit(url or "")
    return parts.password is not None or "password" in parts.query


def prepare(settings: Settings) -> None:
    """Make the registry ready: key, schema, default workload; clear what the dead left."""
    load_keyring(settings.home)
    clean_stale(metrics_folder(settings.home))
    database = open_database(settings.resolved_database_url)
    with database.write() as session:
        deployment.add_workload(session, DEFAULT_WORKLOAD, now=utc_now())
    database.close()


def _override(values: dict[str, Any], path: list[str], value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _override(values, [*path, key], inner)
        return
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def main() -> None:
    """Print the Serve configuration. JSON is YAML."""
    try:
        config = serve_config(load_settings())
    except SettingsError as error:
        sys.stderr.write(f"serving: {error}\n")
        sys.exit(2)
    sys.stdout.write(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
