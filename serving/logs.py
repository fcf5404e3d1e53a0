"""One line per request, with its id; and how log lines look.

The middleware takes `X-Request-ID` where it is a sane one, makes one where not, and returns
it; `traceparent` (W3C) is handed back as it came. No text, no user and no credential is ever
in these lines.
"""

import asyncio
import json
import logging
import re
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from registry.clock import new_id
from registry.settings import LogSettings
from serving import tracing
from serving.metrics import Metrics
from serving.tracing import RequestFacts

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
UNROUTED = "unrouted"
CLIENT_GONE = 499
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines; their lines are at debug level."""

FLUSH_S = 0.1
"""A line about a request may wait this long for others, to be written with them."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("serving.requests")


class Observed:
    """Puts ids, a log line and metrics around an ASGI application."""

    def __init__(self, app: App, metrics: Metrics, *, behind_serve: bool) -> None:
        """Ray Serve returns the id that it was sent itself, so `behind_serve` leaves it to it."""
        self._app = app
        self._metrics = metrics
        self._behind_serve = behind_serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other kinds of scope pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        facts = _facts(scope["headers"])
        tracing.begin(facts)
        started, status = time.perf_counter(), CLIENT_GONE
        extra = []
        if not (self._behind_serve and facts.is_sent_id):
            extra.append((b"x-request-id", facts.request_id.encode()))
        if facts.traceparent is not None:
            extra.append((b"traceparent", facts.traceparent.encode()))

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        finally:
            self._tell(scope, facts, status, time.perf_counter() - started)

    def _tell(self, scope: Scope, facts: RequestFacts, status: int, seconds: float) -> None:
        # The template, not the path: paths hold user ids.
        route = getattr(scope.get("route"), "path_format", UNROUTED)
        about = {"workload": facts.workload, "version": facts.version, "role": facts.role}
        self._metrics.request(route=route, status=status, seconds=seconds, **about)
        for one in facts.answered:
            if one.reply.ok:
                self._metrics.reply(
                    one.reply, workload=one.workload, version=one.version, role=one.role
                )
        level = logging.DEBUG if route in QUIET else logging.INFO
        if logger.isEnabledFor(level):
            fields = {
                "request_id": facts.request_id,
                "traceparent": facts.traceparent,
                "method": scope["method"],
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
                **{name: value or None for name, value in about.items()},
            }
            # Not by `logger.log`, which looks at the stack for a line number that nobody reads.
            record = logging.LogRecord(logger.name, level, "", 0, "request", (), None)
            record.fields = fields
            logger.handle(record)


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines about requests several at a time; every other line takes them along at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: list[str] = []
        self._due = 0.0
        """When what waits is to be written, on the monotonic clock."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line, and write it soon."""
        try:
            line = self.format(record)
        except Exception:  # logging must not break what it tells of
            self.handleError(record)
            return
        self._waiting.append(line)
        if len(self._waiting) == 1:
            self._due = time.monotonic() + FLUSH_S
            self._flush_later()
        if not hasattr(record, "fields") or time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        with self.lock or nullcontext():
            lines, self._waiting = self._waiting, []
            if lines:
                self.stream.write("".join(f"{line}{self.terminator}" for line in lines))
            super().flush()

    def _flush_later(self) -> None:
        # Where no loop runs, the next line or the end of the process writes it.
        with suppress(RuntimeError):
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, logger and message, and the fields that came with it."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if fields is not None:
            content |= {name: value for name, value in fields.items() if value is not None}
        else:
            facts = tracing.current()
            if facts is not None:
                content["request_id"] = facts.request_id
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content)


class PlainLines(logging.Formatter):
    """For people at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, then the fields that came with it."""
        fields = getattr(record, "fields", {})
        told = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        return f"{super().format(record)} {told}".rstrip()


def configure_logs(settings: LogSettings) -> None:
    """Write the product's own log lines of this process to standard error."""
    # Ray Serve puts an object in the place of `sys.stderr` that looks at the stack at each write.
    assert sys.__stderr__ is not None
    handler = Lines(sys.__stderr__)
    if settings.format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(PlainLines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("serving", "registry"):
        package = logging.getLogger(name)
        package.handlers = [handler]
        package.setLevel(settings.level)
        package.propagate = False


def _facts(headers: list[tuple[bytes, bytes]]) -> RequestFacts:
    request_id, traceparent = None, None
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            request_id = value.decode()
        elif name == b"traceparent" and TRACEPARENT.fullmatch(value):
            traceparent = value.decode()
    if request_id is None:
        return RequestFacts(new_id(), traceparent)
    return RequestFacts(request_id, traceparent, is_sent_id=True)
