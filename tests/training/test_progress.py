from __future__ import annotations

from datetime import UTC, datetime
from threading import Event

import pytest
import ray

from tests.support.ray_cluster import RAY_WARNINGS
from training.progress import Listener, Progress

pytestmark = [*RAY_WARNINGS, pytest.mark.usefixtures("ray_cluster")]


def _progress(step: int) -> Progress:
    return Progress(
        step=step, num_steps=9, loss=1.0, tokens_per_s=10.0, ts=datetime(2026, 11, 20, tzinfo=UTC)
    )


def test_what_is_told_is_heard_at_once_and_in_order() -> None:
    heard: list[int] = []
    first = Event()

    def hear(progress: Progress) -> None:
        heard.append(progress.step)
        first.set()

    with Listener(hear) as listener:
        ray.get(listener.board.tell.remote([_progress(1), _progress(2)]))
        assert first.wait(30)
        ray.get(listener.board.tell.remote([_progress(3)]))
        for _ in range(3):
            ray.get(listener.board.started.remote())
        assert listener.num_failures() == 2
    assert heard == [1, 2, 3]


def test_what_the_callback_raises_is_raised_at_the_end() -> None:
    def refuse(progress: Progress) -> None:
        raise LookupError(f"step {progress.step}")

    listener = Listener(refuse)
    with pytest.raises(LookupError, match="step 4"), listener:
        ray.get(listener.board.tell.remote([_progress(4)]))


def test_a_lost_board_ends_the_listening_and_nothing_else() -> None:
    heard: list[int] = []
    with Listener(lambda progress: heard.append(progress.step)) as listener:
        ray.get(listener.board.tell.remote([_progress(1)]))
        ray.kill(listener.board)
        _wait_until_dead(listener.board)
        assert listener.num_failures() is None


def _wait_until_dead(actor: ray.actor.ActorHandle) -> None:
    """A kill takes a moment to arrive."""
    try:
        while True:
            ray.get(actor.tell.remote([]))
    except ray.exceptions.RayActorError:
        return
