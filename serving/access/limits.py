"""Rate limits: how many requests each caller may make, counted over all routers.

A limit belongs to a role and is counted for each caller in a moving window: no stretch of
time of the window's length holds more accepted requests than the limit, but for what `leases`
says. A storage that fails refuses nobody.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Any, Literal, cast

from fastapi import Request
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import ConfigurationError, StorageError

from registry.crypto import Keyring
from registry.errors import SettingsError
from registry.settings import Settings
from registry.settings_access import LimitSettings
from serving.access.auth import Principal, PrincipalDep
from serving.access.leases import Leases
from serving.access.window_store import WindowStore
from serving.problems import ProblemError
from serving.runtime_env import run_folder

Kind = Literal["user", "reviewer", "admin", "service"]

STORAGE_TIMEOUT_S = 0.25
"""A Redis that takes longer has failed."""
RETRY_S = 1.0
"""A storage that has failed is left alone for this long, so that requests do not wait for it."""

logger = logging.getLogger(__name__)


class Limiter:
    """One router's view of the limits. Use it on one event loop.

    `clock` tells seconds since the epoch; the Redis storage has its own.
    """

    def __init__(
        self, settings: Settings, keyring: Keyring, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises `SettingsError` where the storage cannot be had."""
        self._keyring = keyring
        self._clock = clock
        self._rates = _rates(settings.limits)
        failed = settings.limits.failed
        self._failed_rate = None if failed is None else parse(failed)
        self._storage = _storage(settings, clock)
        self._windows = MovingWindowRateLimiter(self._storage)
        self._leases = Leases(clock)
        self._retry_at: float | None = None

    async def check(self, principal: Principal, address: str | None) -> None:
        """Count a request. Raises `ProblemError` 429 where it is one too many."""
        kind = _kind(principal)
        await self._count(self._rates[kind], kind, _caller(principal, address))

    async def count_failure(self, address: str | None) -> None:
        """Count a bad credential. Raises `ProblemError` 429 where it is one too many."""
        await self._count(self._failed_rate, "failed", f"address:{address}")

    async def _count(self, rate: RateLimitItem | None, kind: str, name: str) -> None:
        if rate is None or not self._may_ask():
            return
        # Neither files nor Redis need to know who it is.
        caller = (kind, self._keyring.pseudonym(name))

        async def take(amount: int) -> bool:
            return await self._windows.hit(rate, *caller, cost=amount)

        try:
            if await self._leases.use(caller, rate.amount, take):
                self._recovered()
                return
            reset_at, remaining = await self._windows.get_window_stats(rate, *caller)
        except StorageError as error:
            self._failed(error)
            return
        raise _refusal(rate, remaining, reset_at - self._clock())

    async def close(self) -> None:
        """Let go of the storage."""
        if isinstance(self._storage, WindowStore):
            self._storage.close()
        else:
            bridge: Any = self._storage.bridge
            await bridge.get_connection().aclose()

    def _may_ask(self) -> bool:
        return self._retry_at is None or self._clock() >= self._retry_at

    def _failed(self, error: StorageError) -> None:
        if self._retry_at is None:
            logger.warning("rate limits do not hold, their storage fails: %s", error.storage_error)
        self._retry_at = self._clock() + RETRY_S

    def _recovered(self) -> None:
        if self._retry_at is not None:
            logger.warning("rate limits hold again")
            self._retry_at = None


async def limited(request: Request, principal: PrincipalDep) -> None:
    """A dependency of routes that count. Raises `ProblemError` 429."""
    limiter = cast(Limiter, request.app.state.service.limiter)
    await limiter.check(principal, request.client.host if request.client else None)


def _kind(principal: Principal) -> Kind:
    if principal.subject is None and principal.role != "admin":
        return "service"
    return principal.role


def _caller(principal: Principal, address: str | None) -> str:
    if principal.subject is not None:
        return f"subject:{principal.subject}"
    if principal.key_prefix is not None:
        return f"key:{principal.key_prefix}"
    return f"address:{address}"


def _rates(settings: LimitSettings) -> dict[Kind, RateLimitItem | None]:
    texts: dict[Kind, str | None] = {
        "user": settings.user,
        "reviewer": settings.reviewer,
        "service": settings.service,
        "admin": settings.admin,
    }
    return {kind: parse(text) if text is not None else None for kind, text in texts.items()}


def _storage(settings: Settings, clock: Callable[[], float]) -> WindowStore | RedisStorage:
    url = settings.limits.storage_url
    if url is None:
        return WindowStore(run_folder(settings), clock=clock)
    try:
        return RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="kalimtak",
            socket_timeout=STORAGE_TIMEOUT_S,
            socket_connect_timeout=STORAGE_TIMEOUT_S,
        )
    except ConfigurationError as error:
        raise SettingsError(f"limits.storage_url: {error}; install kalimtak[redis]") from error


def _refusal(rate: RateLimitItem, remaining: int, wait_s: float) -> ProblemError:
    seconds = str(max(1, math.ceil(wait_s)))
    return ProblemError(
        429,
        f"more than {rate.amount} requests in {rate.get_expiry()} s: wait {seconds} s",
        headers={
            "Retry-After": seconds,
            "RateLimit-Limit": str(rate.amount),
            "RateLimit-Remaining": str(remaining),
            "RateLimit-Reset": seconds,
        },
    )
