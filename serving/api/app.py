"""The HTTP application of one router; whoever runs it gives it its parts."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from serving import openapi, problems
from serving.api import (
    admin_acts,
    admin_runs,
    admin_views,
    chat,
    feedback,
    generate,
    health,
    history,
    models,
)
from serving.api.service import Service

MODULES = (
    generate,
    feedback,
    history,
    chat,
    models,
    admin_views,
    admin_acts,
    admin_runs,
    health,
)


def create_api(service: Service) -> FastAPI:
    """All routes on `service`. Its state and recorder start and stop with the application."""
    app = FastAPI(title="Kalimtak", version=version("kalimtak"), lifespan=_lifespan(service))
    app.state.service = service
    problems.install(app)
    openapi.install(app, service.limits)
    for module in MODULES:
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
