"""The routes that carry the traffic, without FastAPI's machinery around every request.

FastAPI keeps them too: its document describes them, and it answers what differs in method or
path. Here the same functions are called, after the same checks, in the same order.
"""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.access.auth import Principal, principal
from serving.access.limits import limited
from serving.api import chat, generate
from serving.api.caps import refusal
from serving.api.service import Service
from serving.problems import answer_with, from_unexpected

Endpoint = Callable[[Request, Service, Principal], Awaitable[Response]]
METHOD = "POST"


class FastLane:
    """ASGI middleware that answers the busiest routes itself and passes the rest on."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._routes = _routes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        route = None
        if scope["type"] == "http" and scope["method"] == METHOD:
            route = self._routes.get(scope["path"])
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        response = await self._response(request, route.endpoint)
        await response(scope, receive, send)

    async def _response(self, request: Request, endpoint: Endpoint) -> Response:
        too_long = refusal(request.scope)
        if too_long is not None:
            return too_long.response()
        try:
            caller = await principal(request)
            await limited(request, caller)
            return await endpoint(request, self._service, caller)
        except Exception as error:  # the last handler there is: every failure has an answer
            return answer_with(request, from_unexpected(error))


def _routes() -> Mapping[str, APIRoute]:
    found = {}
    for module in (generate, chat):
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            assert route.methods == {METHOD}
            found[route.path] = route
    return found
