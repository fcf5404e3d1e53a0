"""Requests counted ahead: those of a busy caller are taken from the shared windows several at once.

Who asks now and then is counted request by request. Who uses up what was taken for him gets twice
as many the next time, up to a hundredth of his limit; what he does not use within a second is
lost to him. So a limit may be passed by at most a hundredth for each router, for a moment.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

LEASE_S = 1.0
SHARE = 100
"""At most one in so many of a limit is taken at once."""
MAX_CALLERS = 4_096

Take = Callable[[int], Awaitable[bool]]
"""Counts so many requests in the shared window, or none of them; whether there was room."""


@dataclass
class _Lease:
    size: int = 1
    left: int = 0
    until: float = 0.0
    """Moment of the clock."""
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One request takes at a time: each of many at once would take for all of them."""


class Leases:
    """What one router has taken for its callers. Use it on one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._leases: OrderedDict[tuple[str, ...], _Lease] = OrderedDict()

    async def use(self, caller: tuple[str, ...], limit: int, take: Take) -> bool:
        """Count one request; False where it is one too many."""
        most = limit // SHARE
        if most <= 1:
            return await take(1)
        lease = self._leases.setdefault(caller, _Lease())
        self._leases.move_to_end(caller)
        if len(self._leases) > MAX_CALLERS:
            self._leases.popitem(last=False)
        if self._is_left(lease):
            return True
        async with lease.taking:
            return self._is_left(lease) or await self._take(lease, most, take)

    def _is_left(self, lease: _Lease) -> bool:
        """Use one of those taken before, where there is one."""
        if lease.left == 0 or self._clock() >= lease.until:
            return False
        lease.left -= 1
        return True

    async def _take(self, lease: _Lease, most: int, take: Take) -> bool:
        now = self._clock()
        if now < lease.until:
            lease.size = min(most, 2 * lease.size)
        else:
            is_recent = now < lease.until + LEASE_S
            lease.size = max(1, lease.size - lease.left) if is_recent else 1
            lease.left = 0
        size = lease.size
        if not await take(size):
            lease.until = 0.0
            return size > 1 and await take(1)
        lease.left = size - 1
        lease.until = now + LEASE_S
        return True
