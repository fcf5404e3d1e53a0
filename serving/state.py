"""Follows the desired state by polling it, and reports what was made of it.

Reports carry the machine's time, not an injected one: whether a process lives is a fact
of the machine.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from registry import deployment
from registry.clock import Clock, utc_now
from registry.db import Database
from registry.deployment import DesiredState
from registry.models import DEFAULT_WORKLOAD, ReplicaStatus
from serving.last_view import LastView
from serving.liveness import Liveness
from serving.routing import Report, settle
from serving.waits import Waits

HEARTBEAT_S = 2.0
"""How often a process reports when nothing has changed."""
UNSURE_FOR = timedelta(seconds=2 * HEARTBEAT_S)
"""Where one replica has died, others of its kind have reported again by then."""
REMEMBERED_FOR_S = 24 * 3600.0
"""Older reports are not even looked at."""
LAST_STEP_S = 5.0
ROUTER = "router"

logger = logging.getLogger(__name__)


class Keeper(Protocol):
    """Who loads adapters (`serving.adapters.AdapterKeeper`)."""

    @property
    def loaded(self) -> Mapping[str, str]:
        """Loaded live versions and their digests."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """Versions that cannot be loaded, and why."""
        ...

    def follow(self, live: Mapping[str, str]) -> None:
        """Load what is live, let go of the rest."""
        ...


class Reporter:
    """Writes one process's row of `replica_status`, when it changes and as a heartbeat."""

    def __init__(
        self, database: Database, *, replica_id: str, kind: str, clock: Clock = utc_now
    ) -> None:
        self._database = database
        self._replica_id = replica_id
        self._kind = kind
        self._clock = clock
        self._last: tuple[object, ...] = ()
        self._reported_at: datetime | None = None

    def report(
        self,
        generations: Mapping[str, int],
        versions: Mapping[str, str],
        refused: Mapping[str, str],
    ) -> None:
        """Report, unless the same was reported a moment ago."""
        now = self._clock()
        facts = (dict(generations), dict(versions), dict(refused))
        # A clock that was set back must not silence it.
        fresh = self._reported_at is not None and (
            timedelta(0) <= now - self._reported_at < timedelta(seconds=HEARTBEAT_S)
        )
        if fresh and facts == self._last:
            return
        with self._database.write() as session:
            deployment.report(
                session,
                replica_id=self._replica_id,
                kind=self._kind,
                generations=generations,
                versions=versions,
                refused=refused,
                now=now,
            )
        self._last, self._reported_at = facts, now

    def forget(self) -> None:
        """Take the report back: this process ends."""
        try:
            with self._database.write() as session:
                deployment.forget_replica(session, self._replica_id)
        except SQLAlchemyError as error:  # a report that stays grows old by itself
            logger.warning("the report could not be taken back: %s", error)


class ReplicaState:
    """A model replica's side: loads what is live in any workload."""

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        reporter: Reporter,
        *,
        last_view: LastView | None = None,
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._reporter = reporter
        self._last_view = last_view
        self._generations: dict[str, int] = {}
        self._reporting = threading.Lock()

    def begin(self) -> None:
        """The first look; while the database is away, what was served last is loaded."""
        try:
            self.refresh()
        except SQLAlchemyError as error:
            logger.warning("starting without the database: %s", error)
            if self._last_view is not None and not self._keeper.loaded:
                self._follow(self._last_view.recall())

    def refresh(self) -> None:
        """One look at the desired state."""
        with self._database.read() as session:
            states = deployment.all_desired(session)
        self._follow(states)
        self._generations = {workload: state.generation for workload, state in states.items()}
        self.report()

    def report(self) -> None:
        """Say what is loaded. Also for a thread beside the one that loads, which takes its time."""
        with self._reporting:
            self._reporter.report(self._generations, self._keeper.loaded, self._keeper.refused)

    def _follow(self, states: Mapping[str, DesiredState]) -> None:
        self._keeper.follow(
            {
                version.version: version.adapter_digest
                for state in states.values()
                for version in state.live
            }
        )


class RouterState:
    """A router's side: what each workload serves now, and which model replicas live."""

    def __init__(
        self,
        database: Database,
        reporter: Reporter,
        *,
        clock: Clock = utc_now,
        last_view: LastView | None = None,
        refused: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`refused`: what this router should use and cannot, and why, for its report."""
        self._database = database
        self._reporter = reporter
        self._refused = refused
        self._clock = clock
        self._last_view = last_view
        self._liveness = Liveness()
        self._views: dict[str, DesiredState] = {}
        self._workloads = {DEFAULT_WORKLOAD}
        self._reports: list[Report] = []
        self._settled = asyncio.Event()
        self._lost_at: dict[str, datetime] = {}
        self._looking = asyncio.Lock()
        self._coming: asyncio.Task[None] | None = None
        """The look that has not begun yet."""
        self.waits = Waits()
        """Of this router's requests, for replicas of each kind."""

    @property
    def reports(self) -> list[Report]:
        """What the live model replicas said last."""
        return self._reports

    def states(self) -> dict[str, DesiredState]:
        """What every workload serves now; nothing, where none of it is loaded yet."""
        return {
            workload: self._views.get(workload) or deployment.unserved(workload)
            for workload in sorted(self._workloads)
        }

    def current(self, workload: str = DEFAULT_WORKLOAD) -> DesiredState | None:
        """What is served now; None before anything can be."""
        return self._views.get(workload)

    @property
    def views(self) -> Mapping[str, DesiredState]:
        """What every workload serves now."""
        return self._views

    async def view(self, workload: str = DEFAULT_WORKLOAD) -> DesiredState:
        """What is served now, waiting until something can be."""
        while True:
            view = self._views.get(workload)
            if view is not None:
                return view
            self._settled.clear()
            await self._settled.wait()

    def lose(self, kind: str) -> None:
        """A replica of this kind has died in the middle of a request."""
        self._lost_at[kind] = self._clock()

    def has(self, kind: str) -> bool:
        """Whether a replica of this kind has reported since the last one was lost."""
        return self.count(kind) > 0

    def count(self, kind: str) -> int:
        """How many of this kind are known to live."""
        return sum(report.kind == kind for report in self._live())

    @property
    def is_cut_off(self) -> bool:
        """Whether the database is away: then the last view holds, and no report means nothing."""
        return self._liveness.is_failing

    async def refresh(self) -> None:
        """One look at the desired state and the reports, which begins after this call.

        One after the other, so that none puts an older state in the place of a newer one; those
        who come before it begins share it.
        """
        if self._coming is None:
            self._coming = asyncio.create_task(self._look_in_turn())
        await asyncio.shield(self._coming)

    async def _look_in_turn(self) -> None:
        async with self._looking:
            self._coming = None
            await self._look()

    async def _look(self) -> None:
        if not self._liveness.is_known:
            with suppress(SQLAlchemyError):  # whether this works says whose silence means death
                await self._report()
        try:
            states, reports = await asyncio.to_thread(self._read)
        except SQLAlchemyError:
            self._liveness.report_failed()
            self._recall()
            raise
        self._reports = reports
        self._workloads = {DEFAULT_WORKLOAD, *states}
        live, before = self._live(), dict(self._views)
        for workload, desired in states.items():
            settled = settle(desired, live, current=self._views.get(workload))
            if settled is not None:
                self._views[workload] = settled
        if self._views:
            self._settled.set()
        self._end_vain_waits()
        if self._last_view is not None and self._views != before:
            await asyncio.to_thread(self._last_view.remember, dict(self._views))
        await self._report()

    def _end_vain_waits(self) -> None:
        """Who waits for a kind of which none lives may ask another, of which one does."""
        now, living = self._clock(), {report.kind for report in self._live()}
        unsure = {kind for kind, at in self._lost_at.items() if now - at < UNSURE_FOR}
        if living and not self._liveness.is_failing:
            self.waits.end_all_but(living | unsure)

    async def _report(self) -> None:
        generations = {workload: view.generation for workload, view in self._views.items()}
        try:
            await asyncio.to_thread(self._reporter.report, generations, {}, self._refused())
        except SQLAlchemyError:
            self._liveness.report_failed()
            raise
        self._liveness.report_kept(self._clock())

    def _recall(self) -> None:
        if self._last_view is not None and not self._views:
            self._views = self._last_view.recall()
            self._workloads |= set(self._views)
            if self._views:
                self._settled.set()

    def _live(self) -> list[Report]:
        """The reports, without those that a lost replica may have left behind."""
        return [
            report
            for report in self._reports
            if report.kind not in self._lost_at or report.seen_at > self._lost_at[report.kind]
        ]

    def _read(self) -> tuple[dict[str, DesiredState], list[Report]]:
        with self._database.read() as session:
            states = deployment.all_desired(session)
            rows = deployment.replicas(session, now=self._clock(), max_age_s=REMEMBERED_FOR_S)
        newest = max((row.seen_at for row in rows), default=None)
        since = self._liveness.dead_before(self._clock(), newest=newest)
        return states, [_report(row) for row in rows if row.kind != ROUTER and row.seen_at >= since]


class Poller:
    """Calls `step` again and again; a failure is logged and the next call comes all the same."""

    def __init__(
        self,
        step: Callable[[], Awaitable[None]],
        *,
        interval_s: float,
        fault: str = "the desired state cannot be followed",
    ) -> None:
        """`fault`: what the log says where a step fails."""
        self._step = step
        self._fault = fault
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._failing = False

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End, after the step that is being taken: a thread of it may use the database."""
        if self._task is None:
            return
        self._stopping.set()
        await asyncio.wait({self._task}, timeout=LAST_STEP_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._step()
                self._failing = False
            except Exception:
                # Serving goes on with the last known state, whatever the database does.
                if not self._failing:
                    logger.exception("%s; trying on", self._fault)
                self._failing = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._interval_s)


def _report(row: ReplicaStatus) -> Report:
    return Report(
        replica_id=row.replica_id,
        kind=row.kind,
        seen_at=row.seen_at,
        versions=row.versions,
        refused=row.refused,
    )
