"""Writes answers and feedback down before anyone hears of them.

One writer per router: what arrives while a transaction runs goes into the next one, so that
many requests share one flush to disk. While the database is away, everything goes to the
spool, in order, and from there into the database once that is back.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Literal, TypeVar

from registry.clock import Clock, NewId, new_id, utc_now
from registry.crypto import Keyring
from registry.db import Database
from registry.errors import NotFoundError
from registry.interactions import Feedback, Interaction
from serving.errors import OverloadedError, RecordError, RecordingError, UnavailableError
from serving.metrics import Metrics
from serving.recording.records import Item, seal, unseal
from serving.recording.spool import Spool
from serving.recording.writing import Writer

MAX_BATCH = 256
"""A transaction that has as many rows takes no more items; the last one may bring hundreds."""
MAX_WAITING = 4096
MIN_COMPANY = 3
"""A transaction costs as much as ten rows of it: under load, rows wait for each other."""
COMPANY_S = 0.03
"""The longest such wait."""
COMPANY_STEP_S = 0.004
RATE_MEMORY = 0.8
"""How much of the rate of writing, as it is estimated, is what was estimated before."""
LOOK_EVERY_S = 1.0
"""How often the spool, and those of dead routers, are looked at."""
PARKED_FOR = timedelta(minutes=15)
"""Feedback waits this long for its interaction, which another router may have spooled."""

WRITING_S = 5.0
"""Who leaves, and whose time is over, while the answer is written down, keeps the request this
long: whoever repeats it is to find the answer."""

logger = logging.getLogger(__name__)

Into = Literal["database", "spool"]
Spooled = tuple[bytes, Item | None]
"""A line and what it says; None where nobody can read it."""
T = TypeVar("T")


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
        spool: Spool,
        metrics: Metrics | None = None,
        clock: Clock = utc_now,
        make_id: NewId = new_id,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._writer = Writer(
            database, keyring, metrics=self._metrics, clock=clock, make_id=make_id
        )
        self._keyring = keyring
        self._spool = spool
        self._clock = clock
        self._make_id = make_id
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(maxsize=MAX_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        """Writes, to the database and to the spool."""
        self._prober = ThreadPoolExecutor(1, thread_name_prefix="recorder-probe")
        """Waits for the database, so that the other thread need not."""
        self._tasks: list[asyncio.Task[None]] = []
        self._num_coming = 0
        self._rate = 0.0
        """Records a second, lately."""
        self._written_at = 0.0

    def start(self) -> None:
        """Begin to write, on the running event loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._work()), loop.create_task(self._catch_up())]

    async def stop(self) -> None:
        """Write what waits, then end. What the database does not take stays in the spool."""
        await self._queue.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._on(self._thread, self._spool.close)
        self._thread.shutdown()
        # What it waits for is bounded by the database's patience.
        await asyncio.to_thread(self._prober.shutdown)

    @property
    def into(self) -> Into:
        """Where rows go now."""
        return "spool" if self._spool.rows else "database"

    @property
    def keyring(self) -> Keyring:
        """What the rows that it writes are encrypted with."""
        return self._keyring

    @property
    def spool(self) -> Spool:
        """Where rows go while the database is away."""
        return self._spool

    def require_room(self) -> None:
        """Raise `OverloadedError` where an answer could not be kept now."""
        if not self._spool.has_room:
            raise OverloadedError("the database is away and the spool is full")
        if self._queue.full():
            raise OverloadedError("too many answers wait to be written down")

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Held while an answer is made that will be recorded: others may wait for it a little."""
        self._num_coming += 1
        try:
            yield
        finally:
            self._num_coming -= 1

    async def record(self, *rows: Interaction) -> None:
        """Return when all rows are durable, together.

        Raises `RecordingError` if they are not, `OverloadedError` if there is no room for them.
        """
        await self.hand_over(*rows)

    def hand_over(self, *rows: Interaction) -> "asyncio.Future[None]":
        """The same for who does not wait: the future ends when all rows are durable.

        Raises `OverloadedError` if there is no room for them.
        """
        return self._put(rows)

    async def feedback(self, feedback: Feedback) -> None:
        """Return when the feedback is durable.

        Raises `NotFoundError` where there is no such interaction. While the database is away,
        nobody can tell: the feedback is kept, and set aside later if nothing turns up.
        Raises `RecordingError` or `OverloadedError` as `record` does.
        """
        await self._put(
            replace(
                feedback,
                id=feedback.id or self._make_id(),
                given_at=feedback.given_at or self._clock(),
            )
        )

    def _put(self, item: Item) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(item, future))
        except asyncio.QueueFull as error:
            raise OverloadedError("too many answers wait to be written down") from error
        return future

    async def _work(self) -> None:
        while True:
            batch = await self._next_batch()
            items = [entry.item for entry in batch]
            started = time.perf_counter()
            outcomes = await self._on(self._thread, partial(self._keep, items))
            seconds = time.perf_counter() - started
            self._metrics.written(into=self.into, records=len(batch), seconds=seconds)
            for entry, outcome in zip(batch, outcomes, strict=True):
                _settle(entry.future, outcome)
                self._queue.task_done()
            self._note_rate(len(batch))

    async def _next_batch(self) -> list[_Waiting]:
        """What waits; where much is written, also what comes within a moment.

        Never more than half of those on their way are waited for: they are not to move in step.
        """
        batch = [await self._queue.get()]
        has_room = self._take_waiting(batch)
        until = time.monotonic() + COMPANY_S
        expected = int(self._rate * COMPANY_S)
        while expected >= MIN_COMPANY and len(batch) < min(expected, self._num_coming // 2):
            if not has_room or time.monotonic() >= until:
                break
            await asyncio.sleep(COMPANY_STEP_S)
            has_room = self._take_waiting(batch)
        return batch

    def _take_waiting(self, batch: list[_Waiting]) -> bool:
        """Add what waits; whether there is room for more."""
        room = MAX_BATCH - sum(_num_rows(entry.item) for entry in batch)
        while room > 0 and not self._queue.empty():
            batch.append(self._queue.get_nowait())
            room -= _num_rows(batch[-1].item)
        return room > 0

    def _note_rate(self, num_written: int) -> None:
        now = time.monotonic()
        rate = num_written / max(now - self._written_at, 1e-6)
        self._rate = RATE_MEMORY * self._rate + (1 - RATE_MEMORY) * rate
        self._written_at = now

    def _keep(self, batch: Sequence[Item]) -> list[Exception | None]:
        """Write a batch where rows go now. Never raises: the writer goes on whatever happens."""
        try:
            if not self._spool.rows:
                try:
                    return self._to_database(batch)
                except UnavailableError as error:
                    logger.warning("%s; answers go to the spool", error)
            return self._spool_up([seal(item, self._keyring) for item in batch])
        except Exception as error:
            logger.exception("a batch of %d records was lost", len(batch))
            failure = RecordingError("it could not be written down; the log says why")
            failure.__cause__ = error
            return [failure] * len(batch)

    def _to_database(self, batch: Sequence[Item]) -> list[Exception | None]:
        outcomes = self._writer.write(batch)
        early = [index for index, found in enumerate(outcomes) if isinstance(found, NotFoundError)]
        if early and self._spool.others_wait():
            # The interaction may lie in the spool of another router.
            lines = [seal(batch[index], self._keyring) for index in early]
            for index, outcome in zip(early, self._spool_up(lines), strict=True):
                outcomes[index] = outcome
        return outcomes

    def _spool_up(self, lines: Sequence[bytes]) -> list[Exception | None]:
        try:
            self._spool.append(lines)
        except OverloadedError as error:
            return [error] * len(lines)
        except OSError as error:
            logger.error("the spool cannot be written: %s", error)
            failure = RecordingError("neither the database nor the spool could take it")
            failure.__cause__ = error
            return [failure] * len(lines)
        return [None] * len(lines)

    async def _catch_up(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # whatever happens here, the next look comes
                logger.exception("the spool could not be replayed; trying on")
            self._metrics.spooled(records=self._spool.rows, size_bytes=self._spool.size_bytes)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        """Adopt what dead routers left, and replay what can be replayed."""
        await self._on(self._thread, self._spool.adopt)
        if not self._spool.rows and not self._spool.parked:
            return
        if not await self._on(self._prober, self._writer.is_possible):
            return
        while await self._on(self._thread, self._replay):
            pass

    def _replay(self) -> bool:
        """Put some spooled records into the database; whether there is more to do."""
        batch = _one_batch(self._unsealed(self._spool.peek(MAX_BATCH)))
        try:
            early = self._offer(batch)
            if early or not batch:
                early = self._offer([*self._unsealed(self._spool.parked), *early])
                self._spool.park(line for line, _ in early)
        except UnavailableError as error:
            logger.warning("%s; the spool keeps %d records", error, self._spool.rows)
            return False
        if batch:
            self._spool.drop([line for line, _ in batch])
            if not self._spool.rows:
                logger.warning("the spool is empty again: answers go to the database")
        return self._spool.rows > 0

    def _unsealed(self, lines: Iterable[bytes]) -> Iterator[Spooled]:
        """What each line says, when it is asked for; what nobody can read is quarantined."""
        for line in lines:
            item = None
            try:
                item = unseal(line, self._keyring)
            except RecordError as error:
                self._spool.quarantine(line, str(error))
            yield line, item

    def _offer(self, batch: Sequence[Spooled]) -> list[Spooled]:
        """Those lines whose interaction is not there yet; all others are done with."""
        known = [(line, item) for line, item in batch if item is not None]
        if not known:
            return []
        outcomes = self._writer.write([item for _, item in known], again=True)
        early: list[Spooled] = []
        for (line, item), outcome in zip(known, outcomes, strict=True):
            if isinstance(outcome, NotFoundError) and self._may_come(item):
                early.append((line, item))
            elif outcome is not None:
                self._spool.quarantine(line, str(outcome))
        return early

    def _may_come(self, item: Item) -> bool:
        given_at = item.given_at if isinstance(item, Feedback) else None
        return given_at is not None and self._clock() - given_at < PARKED_FOR

    @staticmethod
    async def _on(thread: ThreadPoolExecutor, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, step)


async def written(writing: "asyncio.Future[None]") -> None:
    """Wait for what is being written down, for a while also where the request has ended.

    Raises what the recorder says of it.
    """
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing}, timeout=WRITING_S)
        if not writing.done():
            raise
        await writing


def _num_rows(item: Item | None) -> int:
    return len(item) if isinstance(item, tuple) else 1


def _one_batch(waiting: Iterable[Spooled]) -> list[Spooled]:
    """As much as one transaction takes."""
    batch, room = [], MAX_BATCH
    for line, item in waiting:
        batch.append((line, item))
        room -= _num_rows(item)
        if room <= 0:
            break
    return batch


def _settle(future: "asyncio.Future[None]", outcome: Exception | None) -> None:
    if future.done():
        return
    if outcome is None:
        future.set_result(None)
    else:
        future.set_exception(outcome)
