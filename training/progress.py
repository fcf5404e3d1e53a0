"""How a run's progress reaches whoever launched it, from any machine of the cluster.

An actor holds what rank 0 has told and the launcher has not yet asked for. Should it be
lost, training goes on unheard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import ray

_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step."""

    step: int
    """Steps done, those of earlier seeds too. It goes back when lost workers resume from a
    checkpoint."""
    num_steps: int
    """Of all seeds."""
    loss: float
    """Of this step, in nats per learned token."""
    tokens_per_s: float
    """Learned tokens per second in this step, over all workers."""
    ts: datetime
    """When the step ended; UTC."""


class Board:
    """What the workers have told so far. Runs as a Ray actor."""

    def __init__(self) -> None:
        self._steps: list[Progress] = []
        self._num_starts = 0

    def started(self) -> None:
        """A group of workers has started."""
        self._num_starts += 1

    def tell(self, steps: list[Progress]) -> None:
        """Rank 0 has done these steps."""
        self._steps += steps

    def take(self) -> list[Progress]:
        """The steps told since the last call."""
        taken, self._steps = self._steps, []
        return taken

    def num_starts(self) -> int:
        """How often workers have started."""
        return self._num_starts


class Listener:
    """Passes what is told to `on_progress`, in a thread, while the context is entered."""

    def __init__(self, on_progress: Callable[[Progress], None] | None) -> None:
        self.board: Any = ray.remote(Board).options(num_cpus=0).remote()
        """The actor's handle, for the workers."""
        self._on_progress = on_progress
        self._done = Event()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._listen, name="training-progress", daemon=True)

    def __enter__(self) -> Self:
        if self._on_progress is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        ray.kill(self.board)
        if self._error is not None and error is None:
            raise self._error

    def num_failures(self, *, num_runs: int = 1) -> int | None:
        """How often workers of so many runs had to be replaced; None when the board was lost."""
        try:
            num_starts: int = ray.get(self.board.num_starts.remote())
        except ray.exceptions.RayActorError:
            return None
        return max(0, num_starts - num_runs)

    def _listen(self) -> None:
        assert self._on_progress is not None
        try:
            finished = False
            while not finished:
                # Asked once more after the end, for the last steps.
                finished = self._done.wait(_POLL_S)
                for progress in ray.get(self.board.take.remote()):
                    self._on_progress(progress)
        except ray.exceptions.RayActorError:
            return
        except BaseException as error:  # raised again where the run was launched
            self._error = error
