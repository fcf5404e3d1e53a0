"""Who waits, who runs, and what each step feeds: plain values, no torch.

First come, first served: a request that must wait for room lets none pass, so that a long
one is never starved by short ones. Prompts are fed in pieces beside the rows that already
write, so that one long prompt does not hold up everybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from serving.errors import OverloadedError


class Schedulable(Protocol):
    """What a request tells of itself."""

    @property
    def unfed(self) -> int:
        """Tokens that it has not been fed yet; 1 once it writes."""
        ...


R = TypeVar("R", bound=Schedulable)


class Scheduler(Generic[R]):
    """A bounded queue, and the rows that run."""

    def __init__(self, *, max_running: int, max_waiting: int, prompt_tokens: int) -> None:
        """`prompt_tokens`: how many tokens of prompts a step takes at most."""
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._prompt_tokens = prompt_tokens
        self.waiting: deque[R] = deque()
        self.running: list[R] = []

    def enqueue(self, request: R) -> None:
        """Let a request wait. Raises `OverloadedError` when too many do."""
        if len(self.waiting) >= self._max_waiting:
            raise OverloadedError(f"{len(self.waiting)} requests wait already")
        self.waiting.append(request)

    def admit(self, seat: Callable[[R], bool]) -> None:
        """Move requests from the queue to the running rows while `seat` finds them room."""
        while self.waiting and len(self.running) < self._max_running and seat(self.waiting[0]):
            self.running.append(self.waiting.popleft())

    def remove(self, gone: Sequence[R]) -> None:
        """Let go of requests, wherever they are."""
        ids = {id(request) for request in gone}
        self.running = [request for request in self.running if id(request) not in ids]
        if any(id(request) in ids for request in self.waiting):
            self.waiting = deque(request for request in self.waiting if id(request) not in ids)

    def plan(self) -> list[tuple[R, int]]:
        """Who is fed how many tokens in the next step: all that write, and the first prompts."""
        left = self._prompt_tokens
        plan = []
        for request in self.running:
            count = 1 if request.unfed == 1 else min(request.unfed, left)
            if request.unfed > 1:
                left -= count
            if count:
                plan.append((request, count))
        return plan
