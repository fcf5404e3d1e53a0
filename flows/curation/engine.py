"""Where the steps run. Every engine applies the same pure functions, with the same result."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from typing import Protocol, Self

import polars as pl

from flows.curation import neardup
from flows.curation.neardup import Pairs
from flows.curation.rows import Page, RowSteps
from flows.curation.signatures import Signatures

_THREADS = "POLARS_MAX_THREADS"
MOST_WORKERS = 2
"""More would wait for the process that compares and writes."""


def usual_workers() -> int:
    """Processes beside this one that are worth having on this machine."""
    return min(MOST_WORKERS, (os.cpu_count() or 1) - 1)


class Engine(Protocol):
    """Applies row steps to frames and finds pairs that may be alike."""

    def pages(self, steps: RowSteps, frames: Sequence[pl.DataFrame]) -> Iterator[Page]:
        """The steps applied to each frame, in the order of the frames.

        May begin before the first page is asked for.
        """
        ...

    def candidate_pairs(self, signatures: Signatures) -> Pairs:
        """What `neardup.candidate_pairs` finds."""
        ...


class LocalEngine:
    """This process, and others beside it on this machine where there is much to do."""

    def __init__(self, *, num_workers: int = 0) -> None:
        """`num_workers`: processes that apply row steps while this one compares and writes."""
        self._num_workers = num_workers
        self._pool: ProcessPoolExecutor | None = None
        self._scope = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scope.close()

    def pages(self, steps: RowSteps, frames: Sequence[pl.DataFrame]) -> Iterator[Page]:
        """One after the other; a single frame is not worth another process."""
        if not self._num_workers or (self._pool is None and len(frames) < 2):
            return map(steps, frames)
        with _one_polars_thread():
            return self._workers().map(steps, frames)

    def candidate_pairs(self, signatures: Signatures) -> Pairs:
        """Band by band."""
        return neardup.candidate_pairs(signatures)

    def _workers(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # A fork would inherit the locks of threads that it does not have.
            self._pool = ProcessPoolExecutor(
                self._num_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_end_with_parent,
            )
            self._scope.callback(self._pool.shutdown, cancel_futures=True)
        return self._pool


@contextmanager
def _one_polars_thread() -> Iterator[None]:
    """For processes that are started meanwhile: they share the cores among themselves."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before


def _end_with_parent() -> None:
    """A worker waits for work for ever, even where its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
