"""Ends the work for callers who have gone: nobody is going to read the answer."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

from serving.problems import ProblemError

T = TypeVar("T")


async def unless_left(request: Request, work: Awaitable[T]) -> T:
    """What `work` returns; it is cancelled when the caller closes the connection.

    The request's body must have been read. Raises `ProblemError`, which nobody will see.
    """
    task = asyncio.current_task()
    assert task is not None
    is_over, has_left = False, False

    def leave(_watcher: "asyncio.Future[None]") -> None:
        nonlocal has_left
        if not is_over:
            has_left = True
            task.cancel()

    # The work runs in this task: one more for each request would cost more than it brings.
    watcher = asyncio.ensure_future(_left(request))
    watcher.add_done_callback(leave)
    try:
        result = await work
    except asyncio.CancelledError:
        # Somebody else may have cancelled as well; then that goes on.
        if has_left and task.uncancel() == 0:
            raise ProblemError(400, "the caller went away") from None
        raise
    finally:
        is_over = True
        watcher.cancel()
    if has_left:
        # The work was too far to be given up: whoever repeats the request finds it done.
        task.uncancel()
    return result


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
