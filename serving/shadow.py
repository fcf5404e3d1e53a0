"""Has the challenger answer a copy of a share of the traffic, unseen by anyone.

Its answers are logged with the role `shadow`. They cost the caller nothing: a copy is made
after the caller's answer is durable, few run at a time, and under load there are none.
"""

import asyncio
import logging
from dataclasses import replace

from registry.clock import Clock, NewId
from registry.deployment import DesiredState
from registry.interactions import Interaction
from registry.settings import Settings
from serving.asking import Ask, Client
from serving.errors import OverloadedError, RecordingError
from serving.jobs import Job, Models, Reply
from serving.metrics import Metrics
from serving.recording import rows
from serving.recording.recorder import Recorder
from serving.routing import Route, pick, position, unit_of
from serving.state import RouterState

MAX_RUNNING = 4
BUSY_QUEUE_MS = 100.0
"""A caller who waited this long for a batch means that there is no room for copies."""

logger = logging.getLogger(__name__)


class Shadows:
    """The copies of one router's requests."""

    def __init__(
        self,
        *,
        models: Models,
        recorder: Recorder,
        state: RouterState,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        make_id: NewId,
        judged_by: rows.Judge = rows.by_rule,
    ) -> None:
        self._models = models
        self._recorder = recorder
        self._state = state
        self._share = settings.serving.shadow_share
        self._timeout_s = settings.serving.request_timeout_s
        self._metrics = metrics
        self._clock = clock
        self._make_id = make_id
        self._judged_by = judged_by
        self._running: set[asyncio.Task[None]] = set()

    def offer(self, ask: Ask, row: Interaction, route: Route) -> None:
        """Copy a request that was answered by `route` as `row`, if it falls into the share."""
        state = self._state.current(row.workload)
        if state is None or state.challenger is None or route.pinned or route.role == "challenger":
            return
        unit = unit_of(user_id=row.external_user_id, session_id=row.session_id, request_id=row.id)
        copied_to = pick(state, unit=unit)
        assert copied_to is not None
        if position(f"shadow:{state.challenger.version}", unit) >= self._share_of(state):
            return
        if self._is_busy(row):
            self._metrics.shadow("dropped")
            return
        route = Route("challenger", copied_to, state.experiment_id)
        job = ask.job(copied_to.adapter_digest)
        # Where the request came from is kept with the answer that was given.
        unnamed = replace(ask, client=Client())
        task = asyncio.get_running_loop().create_task(self._run(job, unnamed, route))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Give up those that run."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _share_of(self, state: DesiredState) -> float:
        """In its shadow phase a challenger answers all that there is room for."""
        if state.mode == "holdback":
            return 0.0
        return 1.0 if state.mode == "shadow" else self._share

    def _is_busy(self, row: Interaction) -> bool:
        return (
            len(self._running) >= MAX_RUNNING
            or self._recorder.into == "spool"
            or (row.queue_ms or 0.0) > BUSY_QUEUE_MS
        )

    async def _run(self, job: Job, ask: Ask, route: Route) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._models.generate(job, role="challenger")
        except TimeoutError:
            reply = Reply(status="failed", detail=f"no answer within {self._timeout_s:g} s")
        except Exception as error:  # nobody waits for it: a line in the log is all there is to do
            logger.warning("a shadow request failed: %s", error)
            reply = Reply(status="failed", detail="the request to the replica failed")
        if not reply.ok and reply.status != "failed":
            self._metrics.shadow("dropped")
            return
        try:
            await self._recorder.record(self._row(ask, route, reply))
        except (RecordingError, OverloadedError) as error:
            logger.warning("a shadow answer was not kept: %s", error)
            self._metrics.shadow("dropped")
            return
        self._metrics.shadow("answered" if reply.ok else "failed")

    def _row(self, ask: Ask, route: Route, reply: Reply) -> Interaction:
        row_id, now = self._make_id(), self._clock()
        if reply.ok:
            row = rows.answered(
                ask, route, reply, row_id=row_id, now=now, judged_by=self._judged_by
            )
        else:
            row = rows.failed(ask, route, reply.detail, row_id=row_id, now=now)
        return replace(row, role="shadow")
