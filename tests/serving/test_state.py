"""Replicas load what is live and say so; routers switch when that has happened."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from registry import deployment
from registry.db import Database
from serving.adapters import RETRY_AFTER_S, UNLOAD_AFTER_S, AdapterKeeper
from serving.engine.continuous import TorchEngine
from serving.last_view import LastView
from serving.state import ReplicaState, Reporter, RouterState
from tests.serving.conftest import Installation
from tests.support.flaky_database import FlakyDatabase

START = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class FakeKeeper:
    """Loads whatever it is told to, except what it is told to refuse."""

    def __init__(self) -> None:
        self.loaded: Mapping[str, str] = {}
        self.refused: Mapping[str, str] = {}

    def follow(self, live: Mapping[str, str]) -> None:
        self.loaded = live


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def model(installation: Installation, clock: ManualClock, name: str) -> ReplicaState:
    reporter = Reporter(installation.database, replica_id=name, kind="champion", clock=clock.now)
    return ReplicaState(installation.database, FakeKeeper(), reporter)


def router(installation: Installation, clock: ManualClock) -> RouterState:
    reporter = Reporter(installation.database, replica_id="r", kind="router", clock=clock.now)
    return RouterState(installation.database, reporter, clock=clock.now)


async def test_a_router_switches_when_every_live_replica_has_the_version(
    installation: Installation, adapters: dict[str, Path], clock: ManualClock
) -> None:
    first, second = (model(installation, clock, name) for name in ("m1", "m2"))
    state = router(installation, clock)
    await state.refresh()
    assert state.current() is None
    for replica in (first, second):
        replica.refresh()
    await state.refresh()
    version = installation.register(adapters["one"])
    installation.deploy(version)
    first.refresh()
    await state.refresh()
    view = state.current()
    assert view is not None
    assert view.champion is None
    second.refresh()
    await state.refresh()
    view = state.current()
    assert view is not None
    assert view.champion is not None
    assert view.champion.version == version
    with installation.database.read() as session:
        assert deployment.is_observed(
            session, workload="default", generation=view.generation, now=clock.now()
        )


async def test_a_replica_that_died_does_not_hold_up_a_switch(
    installation: Installation, adapters: dict[str, Path], clock: ManualClock
) -> None:
    alive, dead = (model(installation, clock, name) for name in ("m1", "m2"))
    alive.refresh()
    dead.refresh()
    state = router(installation, clock)
    await state.refresh()
    version = installation.register(adapters["one"])
    installation.deploy(version)
    clock.seconds += 1
    state.lose("champion")
    assert not state.has("champion")
    clock.seconds += 2
    alive.refresh()
    await state.refresh()
    assert state.has("champion")
    view = state.current()
    assert view is not None
    assert view.champion is not None
    assert view.champion.version == version


class HeldUpDatabase(Database):
    """The thread of the first read is delayed after it, until told to go on."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.num_reads = 0
        self.has_read, self.may_go_on = threading.Event(), threading.Event()

    @contextmanager
    def read(self) -> Iterator[Session]:
        self.num_reads += 1
        is_first = self.num_reads == 1
        with super().read() as session:
            yield session
        if is_first:
            self.has_read.set()
            self.may_go_on.wait(30)


async def test_looks_come_one_after_the_other_and_are_shared(
    installation: Installation, adapters: dict[str, Path], clock: ManualClock
) -> None:
    replica = model(installation, clock, "m1")
    before = installation.register(adapters["one"])
    for version in (before, installation.register(adapters["two"])):
        installation.deploy(version)
        replica.refresh()
    database = HeldUpDatabase(installation.settings.resolved_database_url)
    reporter = Reporter(installation.database, replica_id="r", kind="router", clock=clock.now)
    state = RouterState(database, reporter, clock=clock.now)
    first = asyncio.create_task(state.refresh())
    await asyncio.to_thread(database.has_read.wait, 30)
    installation.roll_back()
    replica.refresh()
    later = [asyncio.create_task(state.refresh()) for _ in range(50)]
    await asyncio.wait(later, timeout=1)  # time enough to overtake the first one
    database.may_go_on.set()
    await asyncio.gather(first, *later)
    database.close()
    view = state.current()
    assert view is not None
    assert view.champion is not None
    assert view.champion.version == before
    assert database.num_reads == 2


async def test_a_look_that_fails_is_told_to_all_who_share_it(
    installation: Installation, clock: ManualClock
) -> None:
    state, database = flaky_router(installation, clock)
    database.away = True
    asked = (state.refresh() for _ in range(3))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OperationalError] * 3
    database.away = False
    await state.refresh()


def test_reports_are_written_on_change_and_as_a_heartbeat(
    installation: Installation, clock: ManualClock
) -> None:
    replica = model(installation, clock, "m1")
    seen = []
    # The machine's clock is set back by an hour at the end.
    for seconds in (0.0, 0.5, 2.5, -3600.0):
        clock.seconds = seconds
        replica.refresh()
        with installation.database.read() as session:
            (row,) = deployment.replicas(session, now=clock.now())
        seen.append((row.seen_at - START).total_seconds())
    assert seen == [0, 0, 2.5, -3600]


def test_who_takes_long_to_load_a_version_is_not_taken_for_dead(
    installation: Installation, clock: ManualClock
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    class SlowKeeper(FakeKeeper):
        def follow(self, live: Mapping[str, str]) -> None:
            begun.set()
            may_end.wait(30)
            super().follow(live)

    reporter = Reporter(installation.database, replica_id="m", kind="champion", clock=clock.now)
    replica = ReplicaState(installation.database, SlowKeeper(), reporter)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(replica.refresh)
        assert begun.wait(30)
        for seconds in (0.0, 2.5):
            clock.seconds = seconds
            replica.report()
        with installation.database.read() as session:
            (row,) = deployment.replicas(session, now=clock.now())
        assert (row.seen_at - START).total_seconds() == 2.5
        may_end.set()
        loading.result(30)


def test_an_adapter_that_is_no_longer_live_stays_a_moment(
    installation: Installation, adapters: dict[str, Path], tiny_base: Path, clock: ManualClock
) -> None:
    engine = TorchEngine(str(tiny_base))
    keeper = AdapterKeeper(engine, installation.store, monotonic=clock.monotonic)
    digest = installation.store.publish(adapters["one"])
    keeper.follow({"v": digest})
    assert keeper.loaded == {"v": digest}
    keeper.follow({})
    assert keeper.loaded == {}
    assert digest in engine.adapters
    clock.seconds += UNLOAD_AFTER_S
    keeper.follow({})
    assert digest not in engine.adapters


def test_a_missing_adapter_is_refused_and_taken_once_it_is_there(
    installation: Installation, adapters: dict[str, Path], tiny_base: Path, clock: ManualClock
) -> None:
    keeper = AdapterKeeper(
        TorchEngine(str(tiny_base)), installation.store, monotonic=clock.monotonic
    )
    digest = installation.store.publish(adapters["one"])
    published = Path(installation.settings.home) / "artifacts" / digest
    published.rename(published.with_name("away"))
    keeper.follow({"v": digest})
    assert digest in keeper.refused["v"]
    published.with_name("away").rename(published)
    keeper.follow({"v": digest})
    assert keeper.loaded == {}
    clock.seconds += RETRY_AFTER_S
    keeper.follow({"v": digest})
    assert keeper.loaded == {"v": digest}
    assert keeper.refused == {}


def flaky_router(
    installation: Installation, clock: ManualClock, *, last_view: LastView | None = None
) -> tuple[RouterState, FlakyDatabase]:
    database = FlakyDatabase(installation.settings.resolved_database_url)
    reporter = Reporter(database, replica_id="r", kind="router", clock=clock.now)
    return RouterState(database, reporter, clock=clock.now, last_view=last_view), database


async def test_nobody_is_taken_for_dead_while_nobody_can_report(
    installation: Installation, clock: ManualClock
) -> None:
    replica = model(installation, clock, "m1")
    replica.refresh()
    state, database = flaky_router(installation, clock)
    await state.refresh()
    database.away = True
    for seconds in (3.0, 30.0, 31.0):
        clock.seconds = seconds
        with pytest.raises(OperationalError):
            await state.refresh()
        assert state.is_cut_off
        assert state.has("champion")
    database.away = False
    clock.seconds = 32.0
    await state.refresh()
    assert state.has("champion"), "the replica has not had the time to report again"
    assert not state.is_cut_off
    clock.seconds = 34.0
    replica.refresh()
    for seconds in (36.0, 39.0):
        clock.seconds = seconds
        await state.refresh()
        assert state.has("champion")
    clock.seconds = 41.0
    await state.refresh()
    assert not state.has("champion"), "it could have reported, and did not"


async def test_a_router_that_starts_in_an_outage_serves_what_was_served_last(
    installation: Installation, adapters: dict[str, Path], clock: ManualClock
) -> None:
    last_view = LastView(installation.settings.home / "run")
    version = installation.register(adapters["one"])
    installation.deploy(version)
    model(installation, clock, "m1").refresh()
    earlier, _ = flaky_router(installation, clock, last_view=last_view)
    await earlier.refresh()
    clock.seconds = 3600.0
    locked, database = flaky_router(installation, clock)
    database.away = True
    with pytest.raises(OperationalError):
        await locked.refresh()
    assert locked.has("champion"), "it can read, and nobody could report"
    nowhere = Database(f"sqlite:///{installation.settings.home}/run/not_a_database/x.db")
    shutil.rmtree(installation.settings.home / "run" / "not_a_database")
    reporter = Reporter(nowhere, replica_id="r2", kind="router", clock=clock.now)
    blind = RouterState(nowhere, reporter, clock=clock.now, last_view=last_view)
    with pytest.raises(OperationalError):
        await blind.refresh()
    view = blind.current()
    assert view is not None
    assert view.champion is not None
    assert view.champion.version == version
    keeper = FakeKeeper()
    ReplicaState(
        nowhere, keeper, Reporter(nowhere, replica_id="m2", kind="champion"), last_view=last_view
    ).begin()
    assert set(keeper.loaded) == {version}


def test_a_last_view_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert LastView(tmp_path).recall() == {}
    (tmp_path / "last_view.json").write_text("{not json")
    assert LastView(tmp_path).recall() == {}
