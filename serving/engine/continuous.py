"""Continuous batching on plain torch and transformers weights, with stacked LoRA.

Every step runs one packed forward pass over all running rows: one token for each that
writes, and pieces of the prompts of those that have just come. Rows join and leave between
any two steps. `step` belongs to one thread; reading a prompt, submitting, cancelling, loading
and unloading are for any.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from serving.engine.attention import Feed, Step
from serving.engine.cache import CacheRow, KvCache
from serving.engine.cache_budget import token_budget
from serving.engine.model import ChatModel
from serving.engine.request import Request, Sink
from serving.engine.sampling import alternatives, choose
from serving.engine.scheduler import Scheduler
from serving.engine.stacked_lora import StackedLora
from serving.errors import (
    ChatRefusedError,
    EngineError,
    NotLoadedError,
    OverloadedError,
    PromptTooLongError,
)
from serving.jobs import Job, Status

PROMPT_TOKENS = {"cpu": 256, "cuda": 2048}
"""Tokens of prompts in one step: running rows wait for no more than these."""
READ_CHARS = 2_000
"""Characters of prompts that a step turns into tokens, some 2 ms of work, before rows go on."""
NOT_NUMBERS = "the model's output is not a number"
BROKEN = "generation failed; the log says why"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an engine takes on."""

    max_running: int = 32
    """Rows generated together."""
    max_waiting: int = 256
    """Requests beyond those that wait before new ones are refused."""
    cache_tokens: int | None = None
    """Tokens of keys and values, all rows together; None: what the machine has room for."""
    gpu_part: float = 1.0
    """Of a GPU, the part that is this engine's."""
    prompt_tokens: int | None = None
    """Tokens of prompts in one step; None: what suits the device."""


class TorchEngine:
    """The steps, and what comes in between them."""

    def __init__(
        self,
        base: str,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        limits: Limits | None = None,
        rng: random.Random | None = None,
        model: Any | None = None,
    ) -> None:
        """`base` is whatever `from_pretrained` takes; `model`, if given, is used for it.

        `rng` seeds the unseeded jobs. Raises `EngineError` for a model that it cannot run.
        """
        limits = limits or Limits()
        self.model = ChatModel(base, device=torch.device(device), dtype=dtype, model=model)
        self._rng = rng or random.Random()
        self._lora = StackedLora(self.model.module, late=self.model.late)
        self._cache = self._make_cache(limits)
        kind = self.model.device.type
        self._schedule: Scheduler[Request] = Scheduler(
            max_running=limits.max_running,
            max_waiting=limits.max_waiting,
            prompt_tokens=limits.prompt_tokens or PROMPT_TOKENS.get(kind, PROMPT_TOKENS["cpu"]),
        )
        self._max_waiting = limits.max_waiting
        # Accepted; their prompts are read by another thread before they enter.
        self._reading: set[Request] = set()
        self._inbox: deque[Request] = deque()

    @property
    def adapters(self) -> frozenset[str]:
        """Names of the loaded adapters."""
        return self._lora.names

    @property
    def num_running(self) -> int:
        """Rows that are being generated."""
        return len(self._schedule.running)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for room."""
        return len(self._reading) + len(self._inbox) + len(self._schedule.waiting)

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter. Raises `AdapterError` where it does not fit."""
        self._lora.load(name, folder)

    def unload(self, name: str) -> None:
        """Let go of an adapter; rows that run with it still finish."""
        self._lora.unload(name)

    def submit(self, job: Job, sink: Sink, *, streaming: bool = False) -> Request:
        """Have a job answered: `sink` gets its deltas, where `streaming`, and its reply.

        Raises `OverloadedError` at once when too many wait.
        """
        request = self.accept(job, sink, streaming=streaming)
        self.enter(request)
        return request

    def accept(self, job: Job, sink: Sink, *, streaming: bool = False) -> Request:
        """The same, up to `enter`: its prompt may be read in between, by any thread."""
        if self.num_waiting >= self._max_waiting:
            raise OverloadedError(f"{self.num_waiting} requests wait already")
        request = Request(job, sink, streaming=streaming, rng=self._rng)
        self._reading.add(request)
        return request

    def enter(self, request: Request) -> None:
        """Have the next steps take it in."""
        # In this order, so that whoever fails all of them misses none.
        self._inbox.append(request)
        self._reading.discard(request)

    @torch.inference_mode()
    def step(self) -> bool:
        """Run one step; whether there was anything to do."""
        self._drop_cancelled()
        self._receive()
        self._schedule.admit(self._seat)
        plan = self._schedule.plan()
        if plan:
            self._advance(plan)
        return bool(plan or self._inbox)

    @torch.inference_mode()
    def abort(self, detail: str) -> None:
        """Fail everything that is not answered yet, and let it go.

        Raises where even that does not work any more, as after a fault of the device.
        """
        self.fail(detail)
        self._drop_cancelled()

    def fail(self, detail: str) -> None:
        """Fail everything that is not answered yet, without a look at the device."""
        schedule = self._schedule
        # Others come meanwhile: they are failed, or there for the next step.
        for request in [*self._reading, *self._inbox, *schedule.running, *schedule.waiting]:
            request.fail("failed", detail)
            request.cancel()

    def _make_cache(self, limits: Limits) -> KvCache:
        model = self.model
        size = sum(shape.size for shape in model.shapes) * model.dtype.itemsize
        budget = limits.cache_tokens or token_budget(
            size,
            model.device,
            most=limits.max_running * model.context,
            gpu_part=limits.gpu_part,
        )
        if budget < model.context:
            logger.warning(
                "there is room for %d tokens of keys and values, the model's context has %d: "
                "longer conversations are refused (setting serving.kv_cache_tokens, or memory)",
                budget,
                model.context,
            )
        return KvCache(
            model.shapes,
            budget=budget,
            context=model.context,
            max_rows=limits.max_running,
            device=model.device,
            dtype=model.dtype,
        )

    def _receive(self) -> None:
        """Take in what has come, as far as reading it does not hold up rows that run."""
        unread = 0
        while self._inbox and unread < READ_CHARS:
            request = self._inbox.popleft()
            if not request.cancelled:
                unread += 0 if request.is_read else request.size
                self._take_in(request)

    def _take_in(self, request: Request) -> None:
        """From the inbox to the queue, or refused."""
        try:
            self._prepare(request)
            self._schedule.enqueue(request)
        except (EngineError, OverloadedError) as error:
            request.fail(status_of(error), str(error))
        except Exception:
            # A chat template may raise anything on messages that it does not expect.
            logger.exception("a request could not be encoded")
            request.fail("failed", BROKEN)

    def _prepare(self, request: Request) -> None:
        """Its tokens and its adapter. Raises `EngineError`."""
        if request.job.digest is not None:
            request.adapter = self._lora.get(request.job.digest)
        if not request.is_read:
            request.read(self.model)
        if request.fault is not None:
            raise request.fault
        room = self._cache.longest_row - len(request.prompt)
        if room < 1:
            raise PromptTooLongError(
                f"the prompt has {len(request.prompt)} tokens, "
                f"{self._cache.longest_row - 1} are taken here"
            )
        request.limit = min(request.job.max_new_tokens, room)

    def _seat(self, request: Request) -> bool:
        try:
            request.row = self._cache.take(len(request.prompt) + request.limit)
        except torch.OutOfMemoryError:
            # Others have filled what the budget counts on: rows that end make room.
            if not self._schedule.running:
                raise
        if request.row is not None:
            request.start(self.model)
        return request.row is not None

    def _drop_cancelled(self) -> None:
        schedule = self._schedule
        for request in [*schedule.running, *schedule.waiting]:
            if request.cancelled:
                self._finish(request)

    def _finish(self, request: Request) -> None:
        """Let go of one that has its reply: where the device is broken, this raises."""
        self._schedule.remove([request])
        if request.row is not None:
            self._cache.release(request.row)
            request.row = None

    def _advance(self, plan: Sequence[tuple[Request, int]]) -> None:
        """Feed what is planned; what breaks is tried in halves, until it is known whose it is."""
        feeds = [Feed(_row(request), request.next_tokens(count)) for request, count in plan]
        try:
            ordered, logits = self._forward(plan, feeds)
            chosen = choose(logits, [request.sampling for request in ordered])
        except Exception:
            # Whatever a model does, the rows that are not concerned must go on. What the pass
            # has written is written again, to the same places.
            if len(plan) == 1:
                logger.exception("a row failed")
                plan[0][0].fail("failed", BROKEN)
                self._finish(plan[0][0])
            else:
                middle = len(plan) // 2
                self._advance(plan[:middle])
                self._advance(plan[middle:])
            return
        for feed in feeds:
            feed.row.length += len(feed.tokens)
        for place, (request, token) in enumerate(zip(ordered, chosen, strict=True)):
            self._write(request, token, logits[place], batch_rows=len(plan))

    def _forward(
        self, plan: Sequence[tuple[Request, int]], feeds: Sequence[Feed]
    ) -> tuple[list[Request], torch.Tensor]:
        """The requests that get a token now, and their logits."""
        step = Step(feeds, self.model.device)
        wanted, ready, rows, end = [], [], [], 0
        for index in step.order:
            request, count = plan[index]
            end += count
            rows.append((request.adapter, count))
            if count == request.unfed:
                wanted.append(end - 1)
                ready.append(request)
        with self._lora.applied(rows, wanted):
            return ready, self.model.run(step, wanted)

    def _write(
        self, request: Request, token: int | None, logits: torch.Tensor, *, batch_rows: int
    ) -> None:
        if token is None:
            request.fail("failed", NOT_NUMBERS)
            self._finish(request)
            return
        count = request.job.top_logprobs
        worth = None if count is None else alternatives(logits, token, count)
        try:
            reply = request.write(token, worth, self.model, batch_rows=batch_rows)
        except Exception:
            # A sink or a tokenizer that fails concerns this row alone.
            logger.exception("a token could not be handed on")
            request.fail("failed", BROKEN)
            self._finish(request)
            return
        if reply is not None:
            request.reply(reply)
            self._finish(request)


def _row(request: Request) -> CacheRow:
    assert request.row is not None
    return request.row


def status_of(error: EngineError | OverloadedError) -> Status:
    """How a reply tells of an error."""
    if isinstance(error, OverloadedError):
        return "overloaded"
    if isinstance(error, NotLoadedError):
        return "not_loaded"
    if isinstance(error, ChatRefusedError):
        return "unfit"
    return "too_long" if isinstance(error, PromptTooLongError) else "failed"
