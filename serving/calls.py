"""How jobs travel between a router and the replicas of one kind: many in one call.

A call costs each side about a millisecond whatever it carries, so that those who ask in the same
turn of the event loop share one. Each reply leaves the replica once it is done, and who leaves
ends his own job alone. Both ends are here; both need an event loop and nothing of Ray.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Protocol

from registry.clock import NewId, new_id
from serving.jobs import Job, Reply

MAX_JOBS = 8
"""Of one call: it goes to one replica, where others may be free."""
MAX_ABANDONED = 256
OVERLOADED = Reply(status="overloaded", detail="too many requests wait for a replica")
BROKEN_OFF = Reply(status="failed", detail="the call to the replica ended before the answer")
FAULT = Reply(status="failed", detail="generation failed; the replica's log says why")

logger = logging.getLogger(__name__)


class Pieces(Protocol):
    """The replies of one call, as they come."""

    def __aiter__(self) -> AsyncIterator[Mapping[str, Reply]]: ...

    def cancel(self) -> None:
        """End what is not answered."""
        ...


class Line(Protocol):
    """The way to the replicas of one kind."""

    @property
    def num_replicas(self) -> int:
        """Those that are known to live."""
        ...

    def generate(self, jobs: Mapping[str, Job]) -> Pieces:
        """Have one replica answer these. What is taken out before one has them is not sent."""
        ...

    async def abandon(self, names: Sequence[str]) -> None:
        """Tell all replicas that nobody waits for these any more."""
        ...


@dataclass(eq=False)
class _Asked:
    """A job that somebody waits for."""

    name: str
    job: Job
    reply: asyncio.Future[Reply]
    call: _Call | None = None
    """Unset before it is sent, and once that call has ended."""


class _Call:
    """Jobs that were sent together."""

    def __init__(self, together: Sequence[_Asked]) -> None:
        self.together = together
        self.jobs = {asked.name: asked.job for asked in together}
        self.pieces: Pieces | None = None
        for asked in together:
            asked.call = self

    def end(self, error: Exception | None) -> None:
        """Nobody may wait for it any longer."""
        for asked in self.together:
            _settle(asked.reply, error or BROKEN_OFF)
            asked.call = None


class Calls:
    """The router's end. Lives on one event loop."""

    def __init__(self, line: Line, *, new_name: NewId = new_id) -> None:
        self._line = line
        self._new_name = new_name
        self._gathered: list[_Asked] = []
        self._left: list[_Asked] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def generate(self, job: Job) -> Reply:
        """Have a replica answer. Cancelling ends the work.

        Raises what the line raises, to all whose jobs shared the call.
        """
        loop = asyncio.get_running_loop()
        asked = _Asked(self._new_name(), job, loop.create_future())
        if not self._gathered:
            # Of nobody's context: Serve would end the call when the first who asked leaves.
            loop.call_soon(self._send, context=Context())
        self._gathered.append(asked)
        try:
            return await asked.reply
        except asyncio.CancelledError:
            if not self._left:
                loop.call_soon(self._end_left, context=Context())
            self._left.append(asked)
            raise

    def _send(self) -> None:
        gathered, self._gathered = self._gathered, []
        waiting = [asked for asked in gathered if not asked.reply.done()]
        share = math.ceil(len(waiting) / max(self._line.num_replicas, 1))
        for start in range(0, len(waiting), size := min(MAX_JOBS, max(share, 1))):
            self._begin(self._ask(_Call(waiting[start : start + size])))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, call: _Call) -> None:
        error: Exception | None = None
        waiting = {asked.name: asked.reply for asked in call.together}
        try:
            call.pieces = self._line.generate(call.jobs)
            async for replies in call.pieces:
                for name, reply in replies.items():
                    _settle(waiting[name], reply)
        except Exception as caught:
            error = caught
        finally:
            call.end(error)
            error = None  # it holds this frame

    def _end_left(self) -> None:
        """End the calls that nobody waits for, and of the others what was left."""
        left, self._left = self._left, []
        names = []
        for asked in left:
            if (call := asked.call) is None or call.pieces is None:
                continue
            del call.jobs[asked.name]
            if all(other.reply.done() for other in call.together):
                call.pieces.cancel()
            else:
                names.append(asked.name)
        if names:
            self._begin(self._tell(names))

    async def _tell(self, names: Sequence[str]) -> None:
        try:
            await self._line.abandon(names)
        except Exception as error:
            # They are written to their end for nobody, or no replica has them yet.
            logger.info("%d abandoned jobs could not be ended: %s", len(names), error)


def _settle(future: asyncio.Future[Reply], outcome: Reply | Exception) -> None:
    if future.done():  # whoever waited has left
        return
    if isinstance(outcome, Reply):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


class JobsUnderWay:
    """The replica's end. Lives on one event loop."""

    def __init__(self, generate: Callable[[Job], Awaitable[Reply]], *, max_jobs: int) -> None:
        """`max_jobs`: what comes beyond these is refused."""
        self._generate = generate
        self._max_jobs = max_jobs
        self._tasks: dict[str, asyncio.Task[Reply]] = {}
        self._abandoned: deque[str] = deque(maxlen=MAX_ABANDONED)

    async def answer(self, jobs: Mapping[str, Job]) -> AsyncGenerator[dict[str, Reply], None]:
        """The replies to these jobs, each once it is done; closing ends the others."""
        # Word that nobody waits may overtake the job.
        names = [name for name in jobs if name not in self._abandoned]
        room = max(self._max_jobs - len(self._tasks), 0)
        tasks = {asyncio.create_task(self._reply(jobs[name])): name for name in names[:room]}
        self._tasks |= {name: task for task, name in tasks.items()}
        waiting = set(tasks)
        try:
            if refused := names[room:]:
                yield dict.fromkeys(refused, OVERLOADED)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if replies := {tasks[one]: one.result() for one in done if not one.cancelled()}:
                    yield replies
        finally:
            for task, name in tasks.items():
                task.cancel()
                del self._tasks[name]

    def abandon(self, names: Sequence[str]) -> None:
        """End these: nobody waits for them any more."""
        for name in names:
            task = self._tasks.get(name)
            if task is None:
                self._abandoned.append(name)
            else:
                task.cancel()

    async def _reply(self, job: Job) -> Reply:
        try:
            return await self._generate(job)
        except Exception:
            # A bug; those who share the call have nothing to do with it.
            logger.exception("a job failed")
            return FAULT
