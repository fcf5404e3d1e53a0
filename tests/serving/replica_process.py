"""Streams from, cancels and kills replicas on a Ray cluster of its own; prints what it saw.

`python -m tests.serving.replica_process SETTINGS.json RAY_FOLDER`
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import ray
from ray import serve

from registry.settings import Settings
from serving.jobs import Delta, Job, Reply
from serving.replica import CHAMPION, ModelReplica, ReplicaHandles
from serving.waits import Waits

STEP_S = 0.05
LONG = Job(
    messages=[{"role": "user", "content": "x"}],
    digest=None,
    max_new_tokens=400,
    # So that the end mark is as rare as any token.
    temperature=9.0,
    seed=3,
)
SHORT = Job(messages=LONG.messages, digest=None, max_new_tokens=6, temperature=9.0, seed=3)


class SlowReplica(ModelReplica):
    """A replica that takes its time, and tells what it does."""

    async def __init__(self, settings: Settings, kind: str) -> None:  # type: ignore[misc]
        await super().__init__(settings, kind)
        engine: Any = self._worker._engine
        self._core = engine._core
        step = self._core.step

        def slow_step() -> bool:
            time.sleep(STEP_S)
            return bool(step())

        self._core.step = slow_step
        self._told_in: set[int] = set()
        abandon = self._jobs.abandon

        def noted(names: Sequence[str]) -> None:
            self._told_in.add(threading.get_ident())
            abandon(names)

        self._jobs.abandon = noted  # type: ignore[method-assign]

    async def told_on_its_loop(self) -> bool:
        """Whether all word that somebody left came where its tasks live."""
        return self._told_in == {threading.get_ident()}

    def running(self) -> int:
        return int(self._core.num_running)

    def pid(self) -> int:
        return os.getpid()


class FakeRouterState:
    """Knows of replicas of both kinds; counts those that were lost."""

    lost = 0

    def __init__(self) -> None:
        self.waits = Waits()

    def has(self, kind: str) -> bool:
        return bool(kind)

    def count(self, kind: str) -> int:
        return int(self.has(kind))

    def lose(self, kind: str) -> None:
        self.lost += bool(kind)


class Driver:
    """What a router does with its handles."""

    def __init__(self, replicas: Any) -> None:
        self._replica = replicas
        self._state: Any = FakeRouterState()
        self._handles = ReplicaHandles(champion=replicas, challenger=replicas, state=self._state)

    async def run(self) -> dict[str, Any]:
        return {
            "streamed": await self._streamed(),
            "closed_frees": await self._closed(),
            "cancelled_frees": await self._cancelled(),
            "one_of_two_frees": await self._one_of_two_cancelled(),
            "killed": await self._killed(),
            "retried": (await self._handles.generate(SHORT, role=CHAMPION)).status,
            "lost": self._state.lost,
        }

    async def _streamed(self) -> bool:
        whole = await self._handles.generate(SHORT, role=CHAMPION)
        *deltas, reply = [event async for event in self._handles.stream(SHORT, role=CHAMPION)]
        text = "".join(delta.text for delta in deltas if isinstance(delta, Delta))
        return whole.ok and isinstance(reply, Reply) and reply.text == text == whole.text

    async def _closed(self) -> bool:
        events: Any = self._handles.stream(LONG, role=CHAMPION)
        async with aclosing(events):
            await anext(events)
            assert await self._replica.running.remote() == 1
        return await self._until_running(0)

    async def _cancelled(self) -> bool:
        task = asyncio.create_task(self._handles.generate(LONG, role=CHAMPION))
        await self._until_running(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled() and await self._until_running(0)

    async def _one_of_two_cancelled(self) -> bool:
        """Two who share a call, of whom one leaves."""
        asked = [self._handles.generate(LONG, role=CHAMPION) for _ in range(2)]
        tasks = [asyncio.create_task(one) for one in asked]
        await self._until_running(2)
        tasks[0].cancel()
        went = await self._until_running(1) and not tasks[1].done()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return (
            went and await self._until_running(0) and await self._replica.told_on_its_loop.remote()
        )

    async def _killed(self) -> list[str]:
        statuses = []
        async for event in self._handles.stream(LONG, role=CHAMPION):
            if isinstance(event, Reply):
                statuses.append(event.status)
            elif self._state.lost == 0 and not statuses:
                os.kill(await self._replica.pid.remote(), signal.SIGKILL)
        return statuses

    async def _until_running(self, number: int) -> bool:
        """Whether so many jobs run, long before an answer would have ended."""
        for _ in range(100):
            if await self._replica.running.remote() == number:
                return True
            await asyncio.sleep(STEP_S / 2)
        return False


async def ask(handle: Any) -> Any:
    """Handles of this product live on an event loop."""
    return await handle.run.remote()


def main() -> None:
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _temp_dir=sys.argv[2],
        logging_level="warning",
        log_to_driver=False,
    )
    serve.start(proxy_location="Disabled")
    few = {"ray_actor_options": {"num_cpus": 0.1}}
    replica = serve.deployment(SlowReplica, name="Models", max_ongoing_requests=9, **few)
    driver = serve.deployment(Driver, **few).bind(replica.bind(settings, CHAMPION))
    handle = serve.run(driver, name="replicas", route_prefix=None)
    sys.stdout.write(json.dumps(asyncio.run(ask(handle))) + "\n")
    sys.stdout.flush()
    # Not serve.shutdown: it wants the event loop of the handle back. The cluster ends here.
    ray.shutdown()


if __name__ == "__main__":
    main()
