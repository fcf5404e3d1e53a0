"""Several answers at once: all of them or none, and streams woven into one."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


async def all_of(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order; where one fails, the others are cancelled before it is raised."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _cancel(tasks)


async def merge(streams: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[T]:
    """The items of all streams as they come; where one fails, the others are closed."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for one in only:
                yield one
        return
    # One place each: a slow reader holds the streams back.
    queue: asyncio.Queue[T | _End] = asyncio.Queue(maxsize=len(streams))
    tasks = [asyncio.ensure_future(_pump(stream, queue)) for stream in streams]
    num_running = len(tasks)
    try:
        while num_running:
            item = await queue.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                num_running -= 1
    finally:
        await _cancel(tasks)


@dataclass(frozen=True)
class _End:
    """How a stream ended."""

    error: Exception | None


async def _pump(stream: AsyncGenerator[T], queue: "asyncio.Queue[T | _End]") -> None:
    end = _End(None)
    try:
        async with aclosing(stream):
            async for item in stream:
                await queue.put(item)
    except Exception as error:  # whoever reads the merged stream is to raise it
        end = _End(error)
    await queue.put(end)


async def _cancel(tasks: Sequence["asyncio.Future[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
