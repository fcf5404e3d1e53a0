"""The connection to Ray, for the flows that train and evaluate."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import ray

from flows.environment import ray_address, ray_num_cpus, ray_temp_dir
from registry.settings import Settings


@contextmanager
def ray_session(settings: Settings) -> Iterator[None]:
    """Ray for the time of the block: the running cluster, else one of this process alone.

    However the block ends, what it has started on Ray ends with it.
    """
    if ray.is_initialized():
        with _termination_heard():
            yield
        return
    address = ray_address(settings)
    with _own_termination_handler():
        if address is not None:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        else:
            ray.init(
                num_cpus=ray_num_cpus(settings),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _temp_dir=str(ray_temp_dir(settings)),
            )
    try:
        with _termination_heard():
            yield
    finally:
        ray.shutdown()


@contextmanager
def _termination_heard() -> Iterator[None]:
    """Lets a process that waits for Ray end when it is told to.

    Of what a signal's handler raises, `ray.get` lets KeyboardInterrupt out and swallows what
    Prefect's raises. So it is interrupted, and the handler is called where it is over.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append((number, frame))
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if received:
            handler(*received[0])
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _own_termination_handler() -> Iterator[None]:
    """Ray takes SIGTERM for itself: Prefect, which tells cancelled from crashed by it, keeps it.

    Where nobody had taken it, Ray's handler stays: it ends the process in good order.
    """
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
