"""Caps on the request line and the headers, which are read before any route is.

HAProxy, in front, refuses with a 400 of its own what does not fit into its 16 KiB; these are
below that, hold for whoever is served without it, and answer with a problem body.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.problems import ProblemError

MAX_TARGET_BYTES = 4 * 1024
"""Path and query; a user id of the longest length, escaped, has 3 KiB."""
MAX_HEADER_BYTES = 8 * 1024
"""Names and values of all headers together."""


class RequestCaps:
    """ASGI middleware that answers with 414 or 431 what is too long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        too_long = refusal(scope) if scope["type"] == "http" else None
        if too_long is None:
            await self._app(scope, receive, send)
        else:
            await too_long.response()(scope, receive, send)


def refusal(scope: Scope) -> ProblemError | None:
    """What is wrong with the size of a request's line or headers, if anything."""
    target = len(scope["raw_path"]) + len(scope["query_string"])
    if target > MAX_TARGET_BYTES:
        return ProblemError(
            414, f"path and query have {target} bytes, at most {MAX_TARGET_BYTES} are taken"
        )
    headers = sum(len(name) + len(value) for name, value in scope["headers"])
    if headers > MAX_HEADER_BYTES:
        return ProblemError(
            431, f"the headers have {headers} bytes, at most {MAX_HEADER_BYTES} are taken"
        )
    return None
