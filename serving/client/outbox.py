"""What a client has still to send: a bounded queue, and the requests that it makes up.

It opens no connection: `serving.client.sender` sends what this says, and tells it what came back.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from serving.client.retry import Outcome, is_retryable, may_pass

MAX_BATCH_ITEMS = 200
MAX_BATCH_BYTES = 1024 * 1024
"""Of one request; what a reverse proxy takes by default."""

TOO_LARGE = 413

logger = logging.getLogger(__name__)

Kind = Literal["log", "feedback"]


@dataclass(frozen=True)
class Entry:
    """One thing to send, as JSON; kept as text, so that later changes by the caller are not."""

    kind: Kind
    interaction_id: str
    body: bytes
    key: str
    """Idempotency key of the request that sends it alone."""


@dataclass(frozen=True)
class Drop:
    """Something that will not arrive, and why."""

    kind: Kind
    interaction_id: str
    reason: str


OnDrop = Callable[[Drop], object]
Reading = tuple[Sequence[Entry], list[tuple[Entry, str]]]
"""What is to be sent again, and what was refused with the reason."""


@dataclass(frozen=True)
class Parcel:
    """One request: a batch of interactions, or one feedback."""

    entries: tuple[Entry, ...]

    @property
    def path(self) -> str:
        """Where it goes."""
        return "/api/interactions" if self.entries[0].kind == "log" else "/api/feedback"

    @property
    def content(self) -> bytes:
        """The body."""
        if self.entries[0].kind == "feedback":
            return self.entries[0].body
        return b'{"interactions":[' + b",".join(entry.body for entry in self.entries) + b"]}"

    @property
    def headers(self) -> dict[str, str]:
        """Headers of its own. Batches need no key: their items have ids."""
        headers = {"Content-Type": "application/json"}
        if self.entries[0].kind == "feedback":
            headers["Idempotency-Key"] = self.entries[0].key
        return headers


def encode(value: dict[str, Any]) -> bytes:
    """JSON without what is None. Raises `TypeError` or `ValueError` for what JSON cannot say."""
    kept = {name: part for name, part in value.items() if part is not None}
    return json.dumps(kept, allow_nan=False, separators=(",", ":")).encode()


class Outbox:
    """The queue. Threads may share it; feedback never overtakes the answer that it is about."""

    def __init__(self, *, capacity: int, on_drop: OnDrop | None) -> None:
        self._capacity = capacity
        self._on_drop = on_drop
        self.reset()

    def reset(self) -> None:
        """Forget everything: a forked child must not send what its parent sends."""
        self._entries: deque[Entry] = deque()
        self.changed = threading.Condition()
        self._in_flight = 0
        self._max_items = MAX_BATCH_ITEMS
        self.num_dropped = 0
        self._given_up: str | None = None
        """Why nothing is sent any more."""

    @property
    def has_full_batch(self) -> bool:
        """Whether waiting longer would not make the next request fuller."""
        return len(self._entries) >= self._max_items

    def __len__(self) -> int:
        return len(self._entries) + self._in_flight

    def put(self, entry: Entry) -> bool:
        """Queue it, unless the queue is full: then it is dropped."""
        with self.changed:
            full = len(self) >= self._capacity
            if not full:
                self._entries.append(entry)
                self.changed.notify_all()
        if full:
            self.drop(entry, f"{self._capacity} things wait already")
        return not full

    def take(self) -> Parcel | None:
        """The next request; None where nothing waits. `settle` must follow."""
        with self.changed:
            if not self._entries:
                return None
            taken = [self._entries.popleft()]
            size = len(taken[0].body)
            while (
                taken[0].kind == "log"
                and self._entries
                and self._entries[0].kind == "log"
                and len(taken) < self._max_items
                and size + len(self._entries[0].body) < MAX_BATCH_BYTES
            ):
                taken.append(self._entries.popleft())
                size += len(taken[-1].body)
            self._in_flight = len(taken)
            return Parcel(tuple(taken))

    def settle(self, parcel: Parcel, outcome: Outcome) -> bool:
        """What came back for a parcel; True where something of it waits to be sent again."""
        again, refused = self._read(parcel, outcome)
        # Before anyone who waits for the queue to be empty goes on.
        for entry, reason in refused:
            self.drop(entry, reason)
        with self.changed:
            given_up = self._given_up
            if given_up is None:
                self._entries.extendleft(reversed(again))
            self._in_flight = 0
            self.changed.notify_all()
        if given_up is None:
            return bool(again)
        for entry in again:
            self.drop(entry, given_up)
        return False

    def _read(self, parcel: Parcel, outcome: Outcome) -> Reading:
        """What is to be sent again, and what is refused and why."""
        entries = parcel.entries
        if is_retryable(outcome) or isinstance(outcome, httpx.RequestError):
            return entries, []
        if outcome.is_success:
            return _read_results(parcel, outcome)
        if outcome.status_code == TOO_LARGE and len(entries) > 1:
            self._max_items = len(entries) // 2
            return entries, []
        return [], [(entry, describe(outcome)) for entry in entries]

    def give_up(self, reason: str) -> None:
        """Drop everything that waits, and what is on its way unless it arrives."""
        with self.changed:
            self._given_up = reason
            left, self._entries = self._entries, deque()
            self.changed.notify_all()
        for entry in left:
            self.drop(entry, reason)

    def drop(self, entry: Entry, reason: str) -> None:
        """Count what will not arrive, and tell whoever wants to know."""
        with self.changed:
            self.num_dropped += 1
        logger.warning("%s of %s was dropped: %s", entry.kind, entry.interaction_id, reason)
        if self._on_drop is None:
            return
        try:
            self._on_drop(Drop(entry.kind, entry.interaction_id, reason))
        except Exception:  # the caller's own function must not stop the others' delivery
            logger.exception("on_drop failed")


def describe(response: httpx.Response) -> str:
    """A refusal in one line."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    return f"HTTP {response.status_code}: {detail}"


def _read_results(parcel: Parcel, response: httpx.Response) -> Reading:
    """The items of an answered batch that are to be sent again, and those that are refused."""
    if parcel.entries[0].kind == "feedback":
        return [], []
    again: list[Entry] = []
    refused: list[tuple[Entry, str]] = []
    try:
        for result in response.json()["results"]:
            if result["status"] != "refused":
                continue
            entry, error = parcel.entries[result["index"]], result["error"]
            if may_pass(error["status"]):
                again.append(entry)
            else:
                refused.append((entry, f"HTTP {error['status']}: {error['detail']}"))
    except (ValueError, LookupError, TypeError):
        return [], [(entry, "the answer came from no endpoint of ours") for entry in parcel.entries]
    return again, refused
