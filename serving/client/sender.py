"""Sends what waits in an outbox from a thread of its own, until it is through."""

import atexit
import encodings.idna  # noqa: F401  (looked up by the first connection: see `Sender.reset`)
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable

import httpx

from serving.client.outbox import Entry, Outbox, Parcel
from serving.client.retry import Outcome, delay_s

EXIT_WAIT_S = 5.0
"""How long the end of the program waits for what has not been sent."""

logger = logging.getLogger(__name__)

_senders: "weakref.WeakSet[Sender]" = weakref.WeakSet()


class Sender:
    """One outbox's thread, started when there is something to send."""

    def __init__(
        self, outbox: Outbox, connect: Callable[[], httpx.Client], *, flush_every_s: float
    ) -> None:
        self.outbox = outbox
        self._connect = connect
        self._flush_every_s = flush_every_s
        self.reset()
        self._http: httpx.Client | None = connect()
        _senders.add(self)

    def reset(self) -> None:
        """Begin anew, as a forked child must: its parent keeps thread, locks and sockets.

        Nothing is imported, and no connection pool made, in the thread: a fork in the midst of
        that would leave the child with locks that nobody opens.
        """
        self.outbox.reset()
        self._http = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._hurry = False

    def put(self, entry: Entry) -> bool:
        """Queue it; False where it was dropped."""
        if self._stopping.is_set():
            self.outbox.drop(entry, "the client is closed")
            return False
        taken = self.outbox.put(entry)
        self._start()
        return taken

    def flush(self, timeout_s: float) -> bool:
        """Send now what waits; whether all of it is through within `timeout_s`."""
        with self.outbox.changed:
            self._hurry = True
            self.outbox.changed.notify_all()
            done = self.outbox.changed.wait_for(lambda: not len(self.outbox), timeout_s)
            self._hurry = False
        return done

    def close(self, timeout_s: float) -> bool:
        """Flush, then end; what is not through by then is dropped."""
        if self._stopping.is_set():
            return True
        started = self._thread is not None
        done = self.flush(timeout_s if started else 0)
        self._stopping.set()
        with self.outbox.changed:
            self.outbox.changed.notify_all()
        if self._thread is not None and done:
            self._thread.join(timeout_s)
        self.outbox.give_up("it was not through when the client was closed")
        return done

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return
            http = self._http = self._http or self._connect()
            thread = threading.Thread(
                target=self._run, args=(http,), name="kalimtak-client", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter is ending
                logger.warning("nothing more can be sent: %s", error)
                return
            self._thread = thread

    def _run(self, http: httpx.Client) -> None:
        with http:
            while not self._stopping.is_set():
                self._wait_for_work()
                self._send_all(http)

    def _wait_for_work(self) -> None:
        """Return when there is something, and either some time has passed or somebody waits."""
        changed = self.outbox.changed
        with changed:
            changed.wait_for(lambda: len(self.outbox) or self._stopping.is_set())
            changed.wait_for(
                lambda: self._hurry or self.outbox.has_full_batch or self._stopping.is_set(),
                self._flush_every_s,
            )

    def _send_all(self, http: httpx.Client) -> None:
        attempt = 0
        while not self._stopping.is_set() and (parcel := self.outbox.take()) is not None:
            outcome = _post(http, parcel)
            if not self.outbox.settle(parcel, outcome):
                attempt = 0
                continue
            if attempt == 0:
                logger.info("%d things wait: %s", len(self.outbox), _shown(outcome))
            self._stopping.wait(delay_s(attempt, outcome))
            attempt += 1


def _post(http: httpx.Client, parcel: Parcel) -> Outcome:
    try:
        return http.post(parcel.path, content=parcel.content, headers=parcel.headers)
    except httpx.RequestError as error:
        return error


def _shown(outcome: Outcome) -> str:
    if isinstance(outcome, httpx.Response):
        return f"HTTP {outcome.status_code}"
    return f"{type(outcome).__name__}: {outcome}"


def _at_exit() -> None:
    until = time.monotonic() + EXIT_WAIT_S
    for sender in list(_senders):
        sender.close(max(0.0, until - time.monotonic()))


def _after_fork() -> None:
    for sender in list(_senders):
        sender.reset()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
