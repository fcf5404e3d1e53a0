"""The HTTP application of one router; whoever runs it gives it its parts."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from serving import openapi, problems
from serving.access.limits import limited
from serving.api import (
    admin_acts,
    admin_runs,
    admin_trail,
    admin_views,
    chat,
    feedback,
    generate,
    health,
    history,
    interactions,
    metrics,
    models,
    review,
    users,
)
from serving.api.caps import RequestCaps
from serving.api.fast import FastLane
from serving.api.service import Service
from serving.logs import Observed

LIMITED = (
    generate,
    feedback,
    history,
    interactions,
    chat,
    models,
    admin_views,
    admin_acts,
    admin_runs,
    admin_trail,
    review,
    users,
)
"""Modules whose routes count towards the caller's rate."""


class _Api(FastAPI):
    """Puts the log line around everything, so that failures of any kind have one too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As Starlette does; FastAPI's own way looks at the environment for each request."""
        if scope["type"] == "http":
            await Starlette.__call__(self, scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """The application as it is called."""
        service: Service = self.state.service
        return Observed(
            FastLane(super().build_middleware_stack(), service),
            service.metrics,
            behind_serve=self.state.behind_serve,
        )


def create_api(service: Service, *, behind_serve: bool = False) -> FastAPI:
    """All routes on `service`. Its state and recorder start and stop with the application."""
    app = _Api(
        title="Kalimtak",
        version=version("kalimtak"),
        lifespan=_lifespan(service),
        # Their scripts come from elsewhere, and could do whatever the reader may.
        docs_url=None,
        redoc_url=None,
        # To wherever the Host header says, with the credential.
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.behind_serve = behind_serve
    problems.install(app)
    openapi.install(app, service.limits, has_auth=service.authenticator.enabled)
    app.add_middleware(RequestCaps)
    for module in LIMITED:
        app.include_router(module.router, dependencies=[Depends(limited)])
    for module in (health, metrics):
        app.include_router(module.router)
    return app


def _lifespan(
    service: Service,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    return lifespan
