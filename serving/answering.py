"""Answers a request: choose a version, generate, fall back, write down, reply.

Without HTTP: `api.generate` puts this on the wire.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace

from registry import prompts, quality
from registry.clock import Clock, NewId, new_id, utc_now
from registry.interactions import Interaction
from registry.models import DEFAULT_WORKLOAD
from registry.settings import Settings
from serving import metrics, tracing
from serving.errors import OverloadedError, RecordingError
from serving.jobs import Job, Models, Reply
from serving.problems import ProblemError
from serving.recorder import Recorder
from serving.routing import Route, assign, champion, pin, unit_of
from serving.schemas import GenerateRequest, GenerateResponse
from serving.shadow import Shadows
from serving.state import RouterState

CHALLENGER_SHARE_OF_TIME = 0.5
"""A challenger that hangs leaves the champion this share of the request's time."""
RETRY_AFTER = {"Retry-After": "1"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Client:
    """Where a request came from."""

    ip_address: str | None = None
    user_agent: str | None = None


@dataclass
class _Exchange:
    """One request on its way through."""

    id: str
    request: GenerateRequest
    client: Client
    ends_at: float
    """Moment of the monotonic clock."""
    route: Route | None = None
    job: Job | None = None
    """What the model was last asked."""
    rows: list[Interaction] = field(default_factory=list)
    """What to write down beside the answer."""

    @property
    def remaining_s(self) -> float:
        return max(0.0, self.ends_at - time.monotonic())


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
        clock: Clock = utc_now,
        make_id: NewId = new_id,
    ) -> None:
        self._models = models
        self._recorder = recorder
        self._state = state
        self._shadows = shadows
        self._serving = settings.serving
        self._base_model = settings.training.base_model
        self._clock = clock
        self._make_id = make_id
        self._afterwards: set[asyncio.Task[None]] = set()

    async def answer(self, request: GenerateRequest, client: Client) -> GenerateResponse:
        """The answer, once it is durable. Raises `ProblemError`, or `OverloadedError`."""
        limit = self._serving.request_timeout_s
        self._recorder.require_room()
        exchange = _Exchange(self._make_id(), request, client, time.monotonic() + limit)
        try:
            async with asyncio.timeout(limit):
                return await self._answer(exchange)
        except TimeoutError as error:
            self._record_later(exchange, f"no answer within {limit:g} s")
            raise ProblemError(504, f"no answer within {limit:g} s") from error

    async def finish(self) -> None:
        """Return when the failures of requests that have ended are handed to the recorder."""
        await asyncio.gather(*self._afterwards)

    async def _answer(self, exchange: _Exchange) -> GenerateResponse:
        exchange.route = await self._route(exchange)
        if exchange.route.role == "challenger" and not exchange.route.pinned:
            reply = await self._try_challenger(exchange)
        else:
            reply = await self._try(exchange)
        if not reply.ok:
            raise self._failure(exchange, reply)
        row = self._row(exchange, reply)
        try:
            await self._recorder.record(row, *exchange.rows)
        except RecordingError as error:
            raise ProblemError(
                503, "the answer could not be written down", headers=RETRY_AFTER
            ) from error
        if exchange.job is not None:
            self._shadows.offer(exchange.job, row, exchange.route)
        version = exchange.route.version
        return GenerateResponse(
            structured_prompt=row.structured_prompt,
            model_output=row.model_output,
            tokens_used=reply.tokens_input + reply.tokens_output,
            interaction_id=exchange.id,
            model_version=self._base_model if version is None else version.version,
            role=exchange.route.role,
        )

    async def _route(self, exchange: _Exchange) -> Route:
        view = await self._state.view()
        request = exchange.request
        if request.model_version is None:
            unit = unit_of(
                user_id=request.user_id, session_id=request.session_id, request_id=exchange.id
            )
            return assign(view, unit=unit)
        route = pin(view, request.model_version, base_model=self._base_model)
        if route is None:
            raise ProblemError(
                404, "model_version: this version is not being served", field="model_version"
            )
        return route

    async def _try(self, exchange: _Exchange) -> Reply:
        """Have the route's version answer; once more where the router was behind the replica."""
        reply = await self._generate(exchange)
        if reply.status == "not_loaded":
            await self._state.refresh()
            exchange.route = await self._route(exchange)
            reply = await self._generate(exchange)
        return reply

    async def _try_challenger(self, exchange: _Exchange) -> Reply:
        """The challenger's answer; where it fails, the champion's, which does not count then."""
        assert exchange.route is not None
        try:
            async with asyncio.timeout(exchange.remaining_s * CHALLENGER_SHARE_OF_TIME):
                reply = await self._generate(exchange)
        except TimeoutError:
            reply = Reply(status="failed", detail="the challenger did not answer in time")
        if reply.ok or reply.status == "too_long":
            return reply
        if reply.status in ("failed", "unreachable"):
            exchange.rows.append(self._failed_row(exchange, reply.detail, row_id=self._make_id()))
        exchange.route = champion(await self._state.view())
        return await self._try(exchange)

    async def _generate(self, exchange: _Exchange) -> Reply:
        assert exchange.route is not None
        request, settings = exchange.request, self._serving
        temperature = request.temperature
        version = exchange.route.version
        exchange.job = job = Job(
            messages=prompts.messages(
                request.text, target_tool=request.target_tool, language=request.language
            ),
            digest=None if version is None else version.adapter_digest,
            max_new_tokens=request.max_tokens or settings.max_new_tokens,
            temperature=settings.temperature if temperature is None else temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=request.seed,
        )
        reply = await self._models.generate(job, role=exchange.route.role)
        tracing.note_reply(
            reply,
            workload=DEFAULT_WORKLOAD,
            version=metrics.BASE if version is None else version.version,
            role=exchange.route.role,
        )
        return reply

    def _failure(self, exchange: _Exchange, reply: Reply) -> ProblemError:
        if reply.status == "too_long":
            return ProblemError(422, f"text: {reply.detail}", field="text")
        if reply.status in ("overloaded", "not_loaded"):
            return ProblemError(503, "no model can take the request now", headers=RETRY_AFTER)
        self._record_later(exchange, reply.detail)
        if reply.status == "unreachable":
            return ProblemError(503, "no model replica is reachable", headers=RETRY_AFTER)
        return ProblemError(500, f"the model failed: {reply.detail}")

    def _row(self, exchange: _Exchange, reply: Reply) -> Interaction:
        request, route = exchange.request, exchange.route
        assert route is not None
        # PostgreSQL stores no NUL; a byte-level model may write one.
        output = reply.text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return Interaction(
            id=exchange.id,
            created_at=self._clock(),
            input_text=request.text,
            structured_prompt=prompts.normalise(output, target_tool=request.target_tool),
            model_output=output,
            external_user_id=request.user_id,
            session_id=request.session_id,
            tokens_input=reply.tokens_input,
            tokens_output=reply.tokens_output,
            processing_time_ms=reply.processing_ms,
            queue_ms=reply.queue_ms,
            model_version=None if route.version is None else route.version.version,
            role=route.role,
            experiment_id=route.experiment_id,
            target_tool=request.target_tool,
            language=request.language,
            quality_score=quality.score(output, target_tool=request.target_tool),
            scorer_version=quality.RULE_SCORER,
            ip_address=exchange.client.ip_address,
            user_agent=exchange.client.user_agent,
        )

    def _failed_row(self, exchange: _Exchange, reason: str, *, row_id: str) -> Interaction:
        row = self._row(exchange, Reply(status="failed"))
        return replace(
            row,
            id=row_id,
            error=reason,
            tokens_input=None,
            tokens_output=None,
            processing_time_ms=None,
            queue_ms=None,
            quality_score=None,
            scorer_version=None,
        )

    def _record_later(self, exchange: _Exchange, reason: str) -> None:
        """Count a failure without keeping the caller waiting; nobody gets this row's id."""
        if exchange.route is None:
            return
        row = self._failed_row(exchange, reason, row_id=exchange.id)
        task = asyncio.get_running_loop().create_task(self._record_quietly(row, *exchange.rows))
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    async def _record_quietly(self, *rows: Interaction) -> None:
        try:
            await self._recorder.record(*rows)
        except (RecordingError, OverloadedError) as error:
            logger.warning("a failed request was not counted: %s", error)
