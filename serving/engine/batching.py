"""Between the event loop and an engine that runs step by step in a thread of its own.

Long prompts are read by a second thread, one after the other: a tokenizer works beside the steps.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

from serving.engine.continuous import READ_CHARS, TorchEngine, status_of
from serving.engine.request import Request
from serving.errors import EngineError, OverloadedError
from serving.jobs import Delta, Job, Reply

STOPPED = "the replica is stopping"
ENDED = "the engine has ended; the replica's log says why"

logger = logging.getLogger(__name__)
_Event = tuple["asyncio.Queue[Delta | Reply]", Delta | Reply]


class ThreadedEngine:
    """An `Engine`: one thread takes steps while there is work, and sleeps while there is none."""

    def __init__(self, core: TorchEngine) -> None:
        self._core = core
        self._wake = threading.Event()
        self._over: str | None = None
        """Why no job is taken any more."""
        self._thread: threading.Thread | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._loop: asyncio.AbstractEventLoop | None = None
        # What a step brings is handed to the event loop at once: waking it costs more.
        self._brought: list[_Event] = []

    @property
    def adapters(self) -> frozenset[str]:
        """Names of the loaded adapters."""
        return self._core.adapters

    @property
    def alive(self) -> bool:
        """Whether its thread works."""
        return self._thread is not None and self._thread.is_alive()

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter. Raises `AdapterError` where it does not fit."""
        self._core.load(name, folder)

    def unload(self, name: str) -> None:
        """Let go of an adapter; jobs that run with it still finish."""
        self._core.unload(name)

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End after the running step; jobs that are not answered yet fail."""
        self._over = STOPPED
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._reader.shutdown(wait=False)

    async def generate(self, job: Job) -> Reply:
        """Answer a job. Cancelling frees what it holds."""
        async with aclosing(self._events(job, streaming=False)) as events:
            async for event in events:
                if isinstance(event, Reply):
                    return event
        raise EngineError("the engine ended an answer without a reply")

    def stream(self, job: Job) -> AsyncGenerator[Delta | Reply, None]:
        """The same, piece by piece: deltas, then the reply. Closing frees what it holds."""
        return self._events(job, streaming=True)

    async def _events(self, job: Job, *, streaming: bool) -> AsyncGenerator[Delta | Reply, None]:
        queue: asyncio.Queue[Delta | Reply] = asyncio.Queue()
        if self._over is not None:
            yield Reply(status="failed", detail=self._over)
            return
        try:
            request = self._core.accept(job, self._sink(queue), streaming=streaming)
        except OverloadedError as error:
            yield Reply(status=status_of(error), detail=str(error))
            return
        if request.size > READ_CHARS:
            self._reader.submit(self._read, request)
        else:
            self._enter(request)
        try:
            while not isinstance(event := await queue.get(), Reply):
                yield event
            yield event
        finally:
            self._forget(request)

    def _read(self, request: Request) -> None:
        """In the reader's thread."""
        if not request.cancelled:
            request.read(self._core.model)
        self._enter(request)

    def _enter(self, request: Request) -> None:
        self._core.enter(request)
        self._wake.set()

    def _forget(self, request: Request) -> None:
        request.cancel()
        self._wake.set()

    def _sink(self, queue: asyncio.Queue[Delta | Reply]) -> Callable[[Delta | Reply], None]:
        return lambda event: self._brought.append((queue, event))

    def _work(self) -> None:
        """The engine's thread."""
        try:
            while self._over is None:
                self._wake.clear()
                busy = self._step()
                self._hand_over()
                if not busy:
                    self._wake.wait()
            self._core.abort(STOPPED)
        except Exception:
            logger.exception("the engine has ended: its replica must be replaced")
        finally:
            self._on_loop(self._end)

    def _end(self) -> None:
        """On the event loop, so that no job comes between the last that fail and the refusals."""
        self._over = self._over or ENDED
        self._core.fail(self._over)
        _deliver(self._brought)

    def _step(self) -> bool:
        try:
            return self._core.step()
        except Exception:
            # A row's faults are caught where they are known; after this one nothing is.
            logger.exception("a step failed as a whole")
            self._core.abort("generation failed; the log says why")
            return True

    def _hand_over(self) -> None:
        brought, self._brought = self._brought, []
        if brought:
            self._on_loop(_deliver, brought)

    def _on_loop(self, act: Callable[..., None], *given: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(act, *given)
        except RuntimeError:
            # It has been closed: nobody waits any more.
            logger.info("what the engine brought came after the end")


def _deliver(brought: list[_Event]) -> None:
    for queue, event in brought:
        queue.put_nowait(event)
