"""Writes answers and feedback down before anyone hears of them.

One writer per router: what arrives while a transaction runs goes into the next one, so
that many requests share one flush to disk.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from registry import interactions
from registry.clock import Clock, NewId, new_id, utc_now
from registry.crypto import Keyring
from registry.db import Database, is_unavailable
from registry.errors import NotFoundError
from registry.interactions import Feedback, Interaction
from serving.errors import OverloadedError, RecordingError

MAX_BATCH = 256
MAX_WAITING = 4096

logger = logging.getLogger(__name__)

Item = Sequence[Interaction] | Feedback


@dataclass(frozen=True)
class _Waiting:
    item: Item
    future: "asyncio.Future[None]"


class Recorder:
    """The writer of one router."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        clock: Clock = utc_now,
        make_id: NewId = new_id,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock
        self._make_id = make_id
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(maxsize=MAX_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write, on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Write what waits, then end."""
        await self._queue.join()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def record(self, *rows: Interaction) -> None:
        """Return when all rows are durable, together. Raises `RecordingError` if they are not."""
        await self._put(rows)

    async def feedback(self, feedback: Feedback) -> None:
        """Return when the feedback is durable. Raises `NotFoundError` or `RecordingError`."""
        await self._put(feedback)

    async def _put(self, item: Item) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(item, future))
        except asyncio.QueueFull as error:
            raise OverloadedError("too many answers wait to be written down") from error
        await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            outcomes = await loop.run_in_executor(
                self._thread, self._write, [entry.item for entry in batch]
            )
            for entry, outcome in zip(batch, outcomes, strict=True):
                _settle(entry.future, outcome)
                self._queue.task_done()

    def _write(self, batch: Sequence[Item]) -> list[Exception | None]:
        """One transaction for all; where one item spoils it, each gets its own."""
        try:
            return self._transact(batch)
        except Exception as error:  # whatever one item does, the writer goes on with the others
            logger.warning("a batch of %d rows was not written: %s", len(batch), error)
            lost = isinstance(error, SQLAlchemyError) and is_unavailable(error)
            if lost or len(batch) == 1:
                failure = RecordingError("the database could not take it")
                failure.__cause__ = error
                return [failure] * len(batch)
            return [self._write([item])[0] for item in batch]

    def _transact(self, batch: Sequence[Item]) -> list[Exception | None]:
        outcomes: list[Exception | None] = [None] * len(batch)
        rows = [row for item in batch if not isinstance(item, Feedback) for row in item]
        with self._database.write() as session:
            interactions.log(session, rows, keyring=self._keyring)
            for index, item in enumerate(batch):
                if not isinstance(item, Feedback):
                    continue
                try:
                    interactions.add_feedback(
                        session, item, now=self._clock(), new_id=self._make_id
                    )
                except NotFoundError as error:
                    outcomes[index] = error
        return outcomes


def _settle(future: "asyncio.Future[None]", outcome: Exception | None) -> None:
    if future.done():
        return
    if outcome is None:
        future.set_result(None)
    else:
        future.set_exception(outcome)
