"""Waits for replicas of a kind, which end when none of that kind lives any more.

Serve tells who had been given to a replica that it has died. Who had not been given to one
would wait until another has started, which takes minutes where a model is large.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from serving.errors import GoneError


class Waits:
    """Those of one event loop."""

    def __init__(self) -> None:
        self._limits: dict[str, set[asyncio.Timeout]] = {}

    @asynccontextmanager
    async def on(self, kind: str) -> AsyncIterator[None]:
        """Raises `GoneError` in the block when waiting for this kind has become vain."""
        limits = self._limits.setdefault(kind, set())
        limit = asyncio.timeout(None)
        try:
            async with limit:
                limits.add(limit)
                try:
                    yield
                finally:
                    limits.discard(limit)
        except TimeoutError as error:
            if limit.expired():
                raise GoneError(f"no {kind} replica lives") from error
            raise

    def end_all_but(self, living: Collection[str]) -> None:
        """None of the other kinds lives."""
        now = asyncio.get_running_loop().time()
        for kind, limits in self._limits.items():
            if kind not in living:
                for limit in limits:
                    limit.reschedule(now)
                # They are on their way out; a limit that is being reached takes no other.
                limits.clear()
