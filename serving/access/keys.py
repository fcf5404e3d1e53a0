"""Looks API keys up, without asking the database at each request."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from registry import keys
from registry.clock import Clock, utc_now
from registry.crypto import Keyring
from registry.db import Database
from registry.models import ApiKey
from serving.problems import ProblemError

FRESH_S = 2.0
"""A key that is revoked is refused everywhere within this."""
AHEAD_S = 1.0
"""A key in use is read again after this, behind the requests' backs."""
STALE_S = 600.0
"""While the database is away, a key that was good is taken for this long."""
TOUCH_S = 60.0
"""How exactly `last_used_at` is kept."""
MAX_CACHED = 4_096

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    key: ApiKey | None
    read_at: float


class KeyLookup:
    """The API keys, as one router sees them."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        *,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._clock = clock
        self._monotonic = monotonic
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._touching: set[asyncio.Task[None]] = set()
        self._reading: dict[str, asyncio.Task[_Entry]] = {}

    def looks_like_key(self, text: str) -> bool:
        """Whether this is a key of ours, rather than a token."""
        return keys.prefix_of(text) is not None

    async def get(self, text: str) -> ApiKey | None:
        """The key that `text` is, if it may be used. Raises `ProblemError` 503."""
        prefix = keys.prefix_of(text)
        if prefix is None:
            return None
        key = (await self._entry(prefix)).key
        if key is None or not keys.is_valid(key, text, keyring=self._keyring, now=self._clock()):
            return None
        self._note_use(key)
        return key

    async def finish(self) -> None:
        """Return when the uses of keys are written down, and nothing is being read."""
        await asyncio.gather(*self._touching)
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    async def _entry(self, prefix: str) -> _Entry:
        known = self._entries.get(prefix)
        now = self._monotonic()
        if known is not None and now - known.read_at < FRESH_S:
            if now - known.read_at > AHEAD_S:
                self._begin_to_read(prefix)
            return known
        try:
            # Whoever stops waiting must not stop the others.
            return await asyncio.shield(self._begin_to_read(prefix))
        except SQLAlchemyError as error:
            if known is not None and now - known.read_at < STALE_S:
                return known
            logger.warning("API keys cannot be looked up: %s", type(error).__name__)
            raise ProblemError(
                503, "API keys cannot be looked up now", headers={"Retry-After": "1"}
            ) from error

    def _begin_to_read(self, prefix: str) -> "asyncio.Task[_Entry]":
        """Read a key, once for all requests that show it meanwhile."""
        task = self._reading.get(prefix)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._read_again(prefix))
            self._reading[prefix] = task
            task.add_done_callback(lambda ended: self._end_of_reading(prefix, ended))
        return task

    def _end_of_reading(self, prefix: str, task: "asyncio.Task[_Entry]") -> None:
        del self._reading[prefix]
        if not task.cancelled():
            # Where nobody waited for it, the next request tries again, and tells.
            task.exception()

    async def _read_again(self, prefix: str) -> _Entry:
        asked_at = self._monotonic()
        entry = _Entry(await asyncio.to_thread(self._read, prefix), asked_at)
        if entry.key is None:
            # Guesses must not push keys out that are good.
            self._entries.pop(prefix, None)
            return entry
        self._entries[prefix] = entry
        self._entries.move_to_end(prefix)
        while len(self._entries) > MAX_CACHED:
            self._entries.popitem(last=False)
        return entry

    def _read(self, prefix: str) -> ApiKey | None:
        with self._database.read() as session:
            key = keys.find(session, prefix)
            if key is not None:
                session.expunge(key)
        return key

    def _note_use(self, key: ApiKey) -> None:
        """Write down that the key is in use, behind the request's back."""
        now = self._clock()
        if key.last_used_at is not None and (now - key.last_used_at).total_seconds() < TOUCH_S:
            return
        key.last_used_at = now
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(self._touch, key.prefix))
        self._touching.add(task)
        task.add_done_callback(self._touching.discard)

    def _touch(self, prefix: str) -> None:
        try:
            with self._database.write() as session:
                keys.touch(session, prefix, now=self._clock())
        except SQLAlchemyError as error:
            logger.warning("the use of key %s was not noted: %s", prefix, type(error).__name__)
