"""Answers what is asked: choose a version, generate, fall back, write down, reply.

Without HTTP: the routes in `api` put this on the wire.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

from registry.clock import Clock, NewId, new_id, utc_now
from registry.interactions import Interaction
from registry.monitoring import CALLER_LEFT
from registry.settings import Settings
from serving import metrics, tracing
from serving.asking import Answer, Ask, Piece
from serving.errors import OverloadedError, RecordingError
from serving.jobs import CALLERS, Delta, Job, Models, Reply
from serving.merging import all_of, merge
from serving.problems import ProblemError, overloaded
from serving.recording import rows
from serving.recording.recorder import Recorder, written
from serving.routing import Role, Route, assign, champion, pin, unit_of
from serving.shadow import Shadows
from serving.state import RouterState

CHALLENGER_SHARE_OF_TIME = 0.5
"""A challenger that hangs leaves the champion this share of the request's time."""
MAX_SEED = 2**63 - 1
BROKEN_OFF = Reply(status="failed", detail="the model broke off")

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class _Exchange:
    """One answer on its way through."""

    id: str
    ask: Ask
    choice: int
    unit: str
    """Whom the assignment sticks to."""
    ends_at: float
    """Moment of the monotonic clock."""
    route: Route | None = None
    rows: list[Interaction] = field(default_factory=list)
    """What to write down beside the answer."""
    stream: AsyncGenerator[Delta | Reply] | None = None
    written: str = ""
    unread_s: float = 0.0
    """How long pieces have waited for their reader."""
    is_handed_over: bool = False
    """Whether the recorder has the answer: no failure may be recorded under its id then."""

    @property
    def remaining_s(self) -> float:
        return max(0.0, self.ends_at - time.monotonic())


Attempt = Callable[[_Exchange], Awaitable[Delta | Reply]]
"""Has the exchange's version begin: its first piece, or how it ended."""
Choose = Callable[[_Exchange], Awaitable[Route]]
"""Who answers, as things stand now."""


class Answerer:
    """Answers the requests of one router."""

    def __init__(
        self,
        *,
        models: Models,
        recorder: Recorder,
        state: RouterState,
        settings: Settings,
        shadows: Shadows,
        judged_by: rows.Judge = rows.by_rule,
        clock: Clock = utc_now,
        make_id: NewId = new_id,
    ) -> None:
        self._models = models
        self._recorder = recorder
        self._state = state
        self._shadows = shadows
        self._limit_s = settings.serving.request_timeout_s
        self._base_model = settings.training.base_model
        self._judged_by = judged_by
        self._clock = clock
        self._make_id = make_id
        self._afterwards: set[asyncio.Task[None]] = set()

    async def answer(self, ask: Ask, *, choices: int = 1) -> list[Answer]:
        """All answers, once they are durable. Raises `ProblemError`."""
        exchanges = self._open(ask, choices)
        try:
            with self._recorder.expecting():
                async with asyncio.timeout(self._limit_s):
                    replies = await all_of([self._reply(exchange) for exchange in exchanges])
                    return await self._keep(exchanges, replies)
        except TimeoutError as error:
            raise self._late(exchanges) from error
        except asyncio.CancelledError:
            for exchange in exchanges:
                self._left(exchange)
            raise
        finally:
            for exchange in exchanges:
                self._close(exchange)

    async def stream(self, ask: Ask, *, choices: int = 1) -> AsyncGenerator[Piece | Answer]:
        """The answers piece by piece; each `Answer` comes when it is durable.

        Raises `ProblemError`, at any point. Closing it ends the generation.
        """
        streams = [self._stream(exchange) for exchange in self._open(ask, choices)]
        async with aclosing(merge(streams)) as merged:
            async for item in merged:
                yield item

    async def finish(self) -> None:
        """Return when the failures of requests that have ended are handed to the recorder."""
        await asyncio.gather(*self._afterwards)

    def _open(self, ask: Ask, choices: int) -> list[_Exchange]:
        """The first answer has the request's id, the others the same with "-1", "-2", ….

        Seeded answers differ from each other, and are the same the next time. Raises
        `ProblemError` where nothing more can be written down.
        """
        try:
            self._recorder.require_room()
        except OverloadedError as error:
            raise overloaded(str(error)) from error
        first, ends_at = self._make_id(), time.monotonic() + self._limit_s
        unit = unit_of(user_id=ask.user_id, session_id=ask.session_id, request_id=first)
        exchanges = []
        for choice in range(choices):
            own, seed = ask, ask.sampling.seed
            if seed is not None and choice > 0:
                own = replace(ask, sampling=replace(ask.sampling, seed=(seed + choice) & MAX_SEED))
            own_id = first if choice == 0 else f"{first}-{choice}"
            exchanges.append(_Exchange(own_id, own, choice, unit, ends_at))
        return exchanges

    async def _reply(self, exchange: _Exchange) -> Reply:
        reply = await self._begin(exchange, self._generate)
        assert isinstance(reply, Reply)
        if not reply.ok:
            raise self._failure(exchange, reply)
        return reply

    async def _stream(self, exchange: _Exchange) -> AsyncGenerator[Piece | Answer]:
        try:
            item = await self._in_time(exchange, self._begin(exchange, self._generate_first))
            while isinstance(item, Delta):
                exchange.written += item.text
                offered_at = time.monotonic()
                yield self._piece(exchange, item)
                exchange.unread_s += time.monotonic() - offered_at
                item = await self._in_time(exchange, self._next(exchange))
            if not item.ok:
                raise self._failure(exchange, item)
            for answer in await self._in_time(exchange, self._keep([exchange], [item])):
                yield answer
        except (asyncio.CancelledError, GeneratorExit):
            self._left(exchange)
            raise
        finally:
            self._close(exchange)
            if exchange.stream is not None:
                await exchange.stream.aclose()

    async def _in_time(self, exchange: _Exchange, step: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(exchange.remaining_s):
                return await step
        except TimeoutError as error:
            raise self._late([exchange]) from error

    async def _begin(self, exchange: _Exchange, attempt: Attempt) -> Delta | Reply:
        """The first piece or the reply of whoever could give one."""
        exchange.route = await self._route(exchange)
        if exchange.route.role == "challenger" and not exchange.route.pinned:
            return await self._try_challenger(exchange, attempt)
        return await self._try(exchange, attempt, self._route)

    async def _route(self, exchange: _Exchange) -> Route:
        ask = exchange.ask
        view = await self._state.view(ask.workload)
        if ask.version is None:
            return assign(view, unit=exchange.unit)
        route = pin(view, ask.version, base_model=self._base_model)
        if route is None:
            name = "model" if ask.is_chat else "model_version"
            raise ProblemError(
                404, f"{name}: it is not being served", field=name, code="model_not_found"
            )
        return route

    async def _champion(self, exchange: _Exchange) -> Route:
        return champion(await self._state.view(exchange.ask.workload))

    async def _try(self, exchange: _Exchange, attempt: Attempt, choose: Choose) -> Delta | Reply:
        """Have the route's version answer; where the router was behind the replica, whom `choose`
        names then."""
        begun = await attempt(exchange)
        if isinstance(begun, Reply) and begun.status == "not_loaded":
            await self._state.refresh()
            exchange.route = await choose(exchange)
            begun = await attempt(exchange)
        return begun

    async def _try_challenger(self, exchange: _Exchange, attempt: Attempt) -> Delta | Reply:
        """The challenger's answer; where it fails, the champion's, which does not count then."""
        assert exchange.route is not None
        try:
            async with asyncio.timeout(exchange.remaining_s * CHALLENGER_SHARE_OF_TIME):
                begun = await attempt(exchange)
        except TimeoutError:
            begun = Reply(status="failed", detail="the challenger did not answer in time")
        if isinstance(begun, Delta) or begun.ok or begun.status in CALLERS:
            return begun
        if begun.status in ("failed", "unreachable"):
            exchange.rows.append(self._failed_row(exchange, begun.detail, row_id=self._make_id()))
        exchange.route = await self._champion(exchange)
        return await self._try(exchange, attempt, self._champion)

    async def _generate(self, exchange: _Exchange) -> Reply:
        job, role = _work(exchange)
        reply = await self._models.generate(job, role=role)
        _note(exchange, reply)
        return reply

    async def _generate_first(self, exchange: _Exchange) -> Delta | Reply:
        job, role = _work(exchange)
        if exchange.stream is not None:
            await exchange.stream.aclose()
        stream = self._models.stream(job, role=role)
        exchange.stream = cast(AsyncGenerator[Delta | Reply], stream)
        return await self._next(exchange)

    async def _next(self, exchange: _Exchange) -> Delta | Reply:
        assert exchange.stream is not None
        item = await anext(exchange.stream, BROKEN_OFF)
        if isinstance(item, Reply):
            _note(exchange, item)
        return item

    async def _keep(self, exchanges: list[_Exchange], replies: list[Reply]) -> list[Answer]:
        """Make the answers durable, together."""
        kept = [
            rows.answered(
                exchange.ask,
                _routed(exchange),
                reply,
                row_id=exchange.id,
                now=self._clock(),
                judged_by=self._judged_by,
            )
            for exchange, reply in zip(exchanges, replies, strict=True)
        ]
        beside = [row for exchange in exchanges for row in exchange.rows]
        for exchange in exchanges:
            exchange.is_handed_over = True
        try:
            await written(self._recorder.hand_over(*kept, *beside))
        except RecordingError as error:
            raise overloaded("the answer could not be written down") from error
        except OverloadedError as error:
            raise overloaded(str(error)) from error
        for exchange, row in zip(exchanges, kept, strict=True):
            self._shadows.offer(exchange.ask, row, _routed(exchange))
        return [
            Answer(
                choice=exchange.choice,
                id=row.id,
                version=self._version(exchange),
                role=_routed(exchange).role,
                output=row.model_output,
                structured=row.structured_prompt,
                reply=reply,
            )
            for exchange, row, reply in zip(exchanges, kept, replies, strict=True)
        ]

    def _piece(self, exchange: _Exchange, delta: Delta) -> Piece:
        return Piece(
            choice=exchange.choice,
            id=exchange.id,
            version=self._version(exchange),
            delta=replace(delta, text=rows.storable(delta.text)),
        )

    def _version(self, exchange: _Exchange) -> str:
        version = _routed(exchange).version
        return self._base_model if version is None else version.version

    def _failure(self, exchange: _Exchange, reply: Reply) -> ProblemError:
        if reply.status in CALLERS:
            field = "messages" if exchange.ask.is_chat else "text"
            code = "context_length_exceeded" if reply.status == "too_long" else None
            return ProblemError(422, f"{field}: {reply.detail}", field=field, code=code)
        if reply.status in ("overloaded", "not_loaded"):
            return overloaded("no model can take the request now")
        self._record_later(exchange, reply.detail)
        if reply.status == "unreachable":
            return overloaded("no model replica is reachable")
        return ProblemError(500, f"the model failed: {reply.detail}")

    def _late(self, exchanges: list[_Exchange]) -> ProblemError:
        reason = f"no answer within {self._limit_s:g} s"
        for exchange in exchanges:
            if exchange.unread_s > self._limit_s / 2:
                self._left(exchange)  # or as good as
            else:
                self._record_later(exchange, reason)
        return ProblemError(504, reason)

    def _left(self, exchange: _Exchange) -> None:
        """Who leaves says nothing of the version: the row belongs to no experiment."""
        if exchange.route is not None:
            exchange.route = replace(exchange.route, experiment_id=None)
        self._record_later(exchange, CALLER_LEFT)

    def _failed_row(self, exchange: _Exchange, reason: str, *, row_id: str) -> Interaction:
        return rows.failed(
            exchange.ask,
            _routed(exchange),
            reason,
            row_id=row_id,
            now=self._clock(),
            written=exchange.written,
        )

    def _record_later(self, exchange: _Exchange, reason: str) -> None:
        """Count a failure without keeping the caller waiting."""
        if exchange.route is None or exchange.is_handed_over:
            return
        exchange.rows.append(self._failed_row(exchange, reason, row_id=exchange.id))
        self._close(exchange)

    def _close(self, exchange: _Exchange) -> None:
        """Have the failures that nothing has taken along counted, whatever the request came to."""
        if exchange.is_handed_over or not exchange.rows:
            return
        task = asyncio.get_running_loop().create_task(self._record_quietly(*exchange.rows))
        exchange.rows.clear()
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    async def _record_quietly(self, *failures: Interaction) -> None:
        try:
            await self._recorder.record(*failures)
        except (RecordingError, OverloadedError) as error:
            logger.warning("a failed request was not counted: %s", error)


def _routed(exchange: _Exchange) -> Route:
    assert exchange.route is not None
    return exchange.route


def _work(exchange: _Exchange) -> tuple[Job, Role]:
    route = _routed(exchange)
    digest = None if route.version is None else route.version.adapter_digest
    facts = tracing.current()
    traceparent = None if facts is None else facts.traceparent
    return exchange.ask.job(digest, traceparent=traceparent), route.role


def _note(exchange: _Exchange, reply: Reply) -> None:
    """For the log and the metrics of this request."""
    route = _routed(exchange)
    tracing.note_reply(
        reply,
        workload=exchange.ask.workload,
        version=metrics.BASE if route.version is None else route.version.version,
        role=route.role,
    )
