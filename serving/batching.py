"""Gathers requests into batches: while one batch runs, the next fills up."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from serving.engine import Engine, EngineRequest, Generation, Outcome
from serving.errors import EngineError, OverloadedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batched:
    """An answer, and how long its request waited for a batch to start, in milliseconds."""

    generation: Generation
    queue_ms: float


@dataclass
class _Waiting:
    request: EngineRequest
    future: "asyncio.Future[Batched]"
    arrived: float
    started: float = field(default=0.0)


class Batcher:
    """Runs an engine in a thread of its own, and gives it all that waits, up to a limit."""

    def __init__(self, engine: Engine, *, max_batch_size: int, max_waiting: int) -> None:
        self._engine = engine
        self._max_batch_size = max_batch_size
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(maxsize=max_waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """End after the running batch; what waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait().future.cancel()
        self._thread.shutdown(wait=True)

    async def generate(self, request: EngineRequest) -> Batched:
        """The answer to one request. Raises `OverloadedError` at once, or `EngineError`."""
        future: asyncio.Future[Batched] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(request, future, time.perf_counter()))
        except asyncio.QueueFull as error:
            raise OverloadedError(f"{self._queue.maxsize} requests wait already") from error
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            await loop.run_in_executor(self._thread, self._run, batch, loop.call_soon_threadsafe)

    async def _next_batch(self) -> list[_Waiting]:
        """What waits now, without those whose caller has gone."""
        batch: list[_Waiting] = []
        while not batch:
            entries = [await self._queue.get()]
            while len(entries) < self._max_batch_size and not self._queue.empty():
                entries.append(self._queue.get_nowait())
            batch = [entry for entry in entries if not entry.future.done()]
        return batch

    def _run(self, batch: Sequence[_Waiting], notify: Callable[..., object]) -> None:
        """In the engine's thread: a batch that breaks as a whole is tried one by one."""
        finished = self._attempt(batch, notify)
        unfinished = [entry for place, entry in enumerate(batch) if place not in finished]
        for entry in unfinished:
            if not self._attempt([entry], notify):
                notify(_settle, entry, EngineError("generation failed; the log says why"))

    def _attempt(self, batch: Sequence[_Waiting], notify: Callable[..., object]) -> set[int]:
        finished: set[int] = set()
        started = time.perf_counter()

        def done(place: int, outcome: Outcome) -> None:
            finished.add(place)
            notify(_settle, batch[place], outcome)

        for entry in batch:
            entry.started = started
        try:
            self._engine.generate([entry.request for entry in batch], done)
        except Exception:
            # Whatever a model does, the replica must go on with the next batch.
            logger.exception("a batch of %d requests failed", len(batch))
        return finished


def _settle(entry: _Waiting, outcome: Outcome) -> None:
    if entry.future.done():
        return
    if isinstance(outcome, Generation):
        entry.future.set_result(Batched(outcome, (entry.started - entry.arrived) * 1000))
    else:
        entry.future.set_exception(outcome)
