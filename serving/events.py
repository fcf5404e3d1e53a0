"""Server-sent events: how streamed answers are sent, and stopped when nobody reads them."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "text/event-stream"
DONE = "data: [DONE]\n\n"
# Proxies on the way are not to gather what is meant to be read at once.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_EVENT = {
    "type": "object",
    "description": "One event of the stream; its data is JSON, but for a last [DONE].",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
RESPONSES: dict[int | str, dict[str, Any]] = {200: {"content": {MEDIA_TYPE: {"schema": _EVENT}}}}
"""For the OpenAPI document: with `stream`, the answer comes as events."""
T = TypeVar("T")


def event(data: Any, *, name: str | None = None) -> str:
    """One event with JSON data; `name` is its type."""
    # ASCII: whatever a model writes, no character can end a line.
    line = f"data: {json.dumps(data)}\n\n"
    return line if name is None else f"event: {name}\n{line}"


async def chain(first: T, rest: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """`first`, then the rest."""
    yield first
    async for item in rest:
        yield item


class EventStream(StreamingResponse):
    """Sends events; they and the `source` they are made from are closed however it ends."""

    def __init__(self, events: AsyncGenerator[str], source: AsyncGenerator[Any]) -> None:
        super().__init__(events, media_type=MEDIA_TYPE, headers=HEADERS)
        self._events = events
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events end or the reader has gone."""
        # Told so, Starlette watches for the reader's leaving instead of finding out by the
        # next event, which may be far off.
        watched = {**scope, "asgi": {**scope.get("asgi", {}), "spec_version": "2.3"}}
        async with aclosing(self._source), aclosing(self._events):
            await super().__call__(watched, receive, send)
