"""Tells the registry, from a thread, that a training run is alive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flows.context import Context
from registry import runs
from registry.db import is_unavailable

INTERVAL_S = 15.0
"""Well under the settings' `training.stale_after_s`, so that a missed beat kills nobody."""

logger = logging.getLogger(__name__)


@contextmanager
def heartbeat(context: Context, run_id: str, *, interval_s: float = INTERVAL_S) -> Iterator[None]:
    """Beat every `interval_s` seconds until the block ends."""
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(interval_s):
            try:
                with context.database.write() as session:
                    runs.heartbeat(session, run_id, now=context.clock())
            except Exception as error:
                if not is_unavailable(error):
                    raise
                # The next beat may get through; if none does, the run is reaped, as it should.
                logger.warning("heartbeat of run %s missed: %s", run_id, error)

    thread = threading.Thread(target=beat, name=f"heartbeat-{run_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
