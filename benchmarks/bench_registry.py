"""What the record costs: python -m benchmarks.bench_registry [--quick] [--rows N] [--out FILE]

Durable logging through the product's recorder with 32 writers, each of which waits until its
row is safe before it hands over the next, beside the usage logger of the seeds' design on the
same disk, in turn. Then the bytes that a row takes, and, on both databases with --rows
interactions in them, the totals that status and triggers look at, and reading everything into
polars.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table
from sqlalchemy import case, func, select, update
from sqlmodel import Session, col

from benchmarks.results import Figure, at_least, write_results
from benchmarks.seed_logger import SeedLogger
from flows.decisions.experiment_facts import read
from flows.decisions.facts import gather, keep_days
from registry import deployment, runs, statistics, trial_rows
from registry.clock import new_id, utc_now
from registry.crypto import Keyring, load_keyring
from registry.db import Database, open_database
from registry.interactions import Feedback, Interaction
from registry.models import Experiment, UserInteraction
from registry.reading import iter_frames
from registry.settings import Settings
from registry.settings_decisions import ExperimentSettings
from serving.recording.recorder import Recorder
from serving.recording.spool import Spool
from tests.support.many_rows import NOW, fill, settle
from tests.support.postgresql import postgresql_server

WRITERS = 32
QUESTION = "Write a professional email to request a meeting"
ANSWER = (
    "Subject: Request for Meeting - [Your Topic]\n\nDear [Recipient Name],\n\nI hope this email "
    "finds you well. I would like to request a meeting to discuss [topic]. Would you be available "
    "for a [duration] meeting sometime next week?\n\nBest regards,\n[Your Name]"
)
"""The seeds' own example of a request and its answer."""
MIB = 2**20
GOAL_TIMES, GOAL_BYTES, GOAL_MS, GOAL_READ, GOAL_MIB = 10, 1300, 50, 50_000, 300


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int = 1_000_000
    logged: int = 30_000
    seed_logged: int = 3_000
    rounds: int = 3


def interaction() -> Interaction:
    """The seeds' typical record."""
    return Interaction(
        id=new_id(),
        created_at=utc_now(),
        input_text=QUESTION,
        structured_prompt=ANSWER,
        model_output=ANSWER,
        session_id="s",
        tokens_input=20,
        tokens_output=80,
        processing_time_ms=120.5,
        target_tool="email",
        language="en",
        quality_score=0.85,
        scorer_version="rules-1",
    )


async def record(database: Database, folder: Path, rows: int) -> tuple[float, float]:
    """Rows, then pieces of feedback, that 32 writers have made durable in a second."""
    spool = Spool(folder / "spool", max_bytes=2**30)
    recorder = Recorder(database, load_keyring(folder), spool=spool)
    recorder.start()
    ids: list[str] = []

    async def log(share: int) -> None:
        for _ in range(share):
            row = interaction()
            await recorder.record(row)
            ids.append(row.id)

    async def rate(some: list[str]) -> None:
        for row_id in some:
            await recorder.feedback(Feedback(interaction_id=row_id, score=5))

    started = time.perf_counter()
    await asyncio.gather(*(log(rows // WRITERS) for _ in range(WRITERS)))
    logged = len(ids) / (time.perf_counter() - started)
    rated = ids[: rows // 4]
    started = time.perf_counter()
    await asyncio.gather(*(rate(rated[first::WRITERS]) for first in range(WRITERS)))
    said = len(rated) / (time.perf_counter() - started)
    assert recorder.into == "database"
    await recorder.stop()
    return logged, said


def record_as_seed(logger: SeedLogger, rows: int) -> tuple[float, float]:
    """The same by the seeds' logger, by one writer: more would only wait for each other."""
    started = time.perf_counter()
    ids = [logger.log(QUESTION, ANSWER, "nayru-v1", 0.85) for _ in range(rows)]
    logged = rows / (time.perf_counter() - started)
    started = time.perf_counter()
    for row_id in ids[: rows // 4]:
        logger.record_feedback(row_id, 1)
    return logged, rows // 4 / (time.perf_counter() - started)


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """A registry with the default workload."""
    database = open_database(url)
    with database.write() as session:
        deployment.add_workload(session, "default", now=NOW)
    try:
        yield database
    finally:
        database.close()


def logging_figures(folder: Path, sizes: Sizes) -> list[Figure]:
    """Rows and feedback per second against the seeds' logger, and bytes per row."""
    ours: list[tuple[float, float]] = []
    seeds: list[tuple[float, float]] = []
    logger = SeedLogger(folder / "usage.db")
    with opened(f"sqlite:///{folder / 'kalimtak.db'}") as database:
        for _ in range(sizes.rounds):
            ours.append(asyncio.run(record(database, folder, sizes.logged)))
            seeds.append(record_as_seed(logger, sizes.seed_logged))
    # The last connection that closes brings the write-ahead log into the file.
    size = (folder / "kalimtak.db").stat().st_size / (sizes.rounds * (sizes.logged // 32) * 32)
    seed_size = (folder / "usage.db").stat().st_size / (sizes.rounds * sizes.seed_logged)
    found = []
    for place, name in enumerate(("durable rows logged", "durable pieces of feedback")):
        own = median(pair[place] for pair in ours)
        peer = median(pair[place] for pair in seeds)
        goal = place == 0
        found.append(
            Figure(
                f"SQLite, 32 writers: {name}",
                own,
                "1/s",
                peer="the seeds' usage logger",
                peer_value=peer,
                goal=f"≥ {GOAL_TIMES} times" if goal else None,
                holds=own >= GOAL_TIMES * peer if goal else None,
            )
        )
    found.append(
        Figure(
            "SQLite: size of the seeds' typical record",
            size,
            "bytes/row",
            peer="the seeds' usage logger",
            peer_value=seed_size,
            goal=f"≤ {GOAL_BYTES}",
            holds=size <= GOAL_BYTES,
        )
    )
    return found


TRIAL_DAYS = 7


def a_trial() -> Experiment:
    """One that has had everybody for a week."""
    since = NOW - timedelta(days=TRIAL_DAYS)
    return Experiment(id="trial", settings={}, share=0.25, started_at=since)


LOOKS: dict[str, Callable[[Session], object]] = {
    "all totals (status)": lambda s: statistics.statistics(s),
    "totals of 24 hours": lambda s: statistics.statistics(
        s, since=NOW - timedelta(hours=24, minutes=31), until=NOW - timedelta(minutes=7)
    ),
    "samples since the beginning": lambda s: statistics.count_quality_samples(
        s, workload="default", min_quality=0.7, min_quality_if_liked=0.7, min_feedback=1, since=None
    ),
    "samples of a week": lambda s: statistics.count_quality_samples(
        s,
        workload="default",
        min_quality=0.7,
        min_quality_if_liked=0.7,
        min_feedback=1,
        since=NOW - timedelta(days=7),
    ),
    "all facts of the triggers": lambda s: gather(
        s, workload="default", settings=Settings(), now=NOW
    ),
}


def put_on_trial(database: Database) -> int:
    """Make a trial's of the answers of its days, and look at it once; how many they are.

    Three of ten people have the challenger.
    """
    treated = func.substr(UserInteraction.user_id, -1).in_(["0", "4", "8"])
    change = (
        update(UserInteraction)
        .where(col(UserInteraction.created_at) >= a_trial().started_at)
        .values(experiment_id="trial", role=case((treated, "challenger"), else_="champion"))
    )
    with database.write() as session:
        session.add(a_trial())
        session.flush()
        found = session.connection().execute(change).rowcount
    trial_rows.keep(database, a_trial(), prior_days=ExperimentSettings().prior_days)
    settle(database)
    return found


def check_before(database: Database) -> None:
    """Leave what an installation has that trained a week ago and looks at its triggers hourly."""
    now = NOW - timedelta(days=7)
    with database.write() as session:
        runs.start(session, run_id="r", workload="default", trigger="schedule", now=now)
        runs.finish(session, "r", status="succeeded", reason="", now=now)
    keep_days(
        database, workload="default", settings=Settings(), now=NOW, keyring=Keyring(bytes(32))
    )


def database_figures(name: str, database: Database, sizes: Sizes) -> list[Figure]:
    """What reading and looking costs with that many interactions."""
    fill(database, sizes.rows, workloads=1)
    found = reading_figures(name, database)
    check_before(database)
    found += look_figures(name, database, LOOKS, sizes.rounds)
    sums = f"sums of a trial with {put_on_trial(database):,} answers"
    looks = {
        sums: lambda s: read(s, a_trial(), stage="trial", settings=ExperimentSettings(), now=NOW)
    }
    return found + look_figures(name, database, looks, sizes.rounds)


def look_figures(
    name: str, database: Database, looks: dict[str, Callable[[Session], object]], rounds: int
) -> list[Figure]:
    """How long the product's looks at usage take, once warm."""
    found = []
    for look, look_at in looks.items():
        times = []
        for _ in range(5 * rounds + 2):
            with database.read() as session:
                started = time.perf_counter()
                look_at(session)
                times.append((time.perf_counter() - started) * 1000)
        value = median(times[2:])
        goal = f"≤ {GOAL_MS}"
        found.append(Figure(f"{name}: {look}", value, "ms", goal=goal, holds=value <= GOAL_MS))
    return found


def reading_figures(name: str, database: Database) -> list[Figure]:
    """Rows per second into polars, and the memory that it takes."""
    table = UserInteraction
    query = (
        select(*(col(getattr(table, column)) for column in UserInteraction.model_fields))
        .where(col(table.workload) == "default")
        .order_by(col(table.created_at), col(table.id))
    )
    process = psutil.Process()
    before = most = process.memory_info().rss
    rows, started = 0, time.perf_counter()
    for frame in iter_frames(database, query):
        rows += frame.height
        most = max(most, process.memory_info().rss)
    speed, grown = rows / (time.perf_counter() - started), (most - before) / MIB
    return [
        at_least(f"{name}: rows read into polars", speed, "rows/s", GOAL_READ),
        Figure(
            f"{name}: memory grown while reading",
            grown,
            "MiB",
            goal=f"≤ {GOAL_MIB}",
            holds=grown <= GOAL_MIB,
        ),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="small: to see that it runs")
    parser.add_argument("--rows", type=int, default=Sizes.rows, help="interactions to read")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    sizes = Sizes(rows=options.rows)
    if options.quick:
        sizes = Sizes(rows=20_000, logged=2_000, seed_logged=200, rounds=1)
    with tempfile.TemporaryDirectory() as folder:
        found = logging_figures(Path(folder), sizes)
        with opened(f"sqlite:///{folder}/many.db") as database:
            found += database_figures("SQLite", database, sizes)
    with postgresql_server(durable=True) as server, opened(server.create()) as database:
        found += database_figures("PostgreSQL", database, sizes)
    table = Table("figure", "value", "unit", "beside", "goal", "holds")
    for figure in found:
        holds = "" if figure.holds is None else ("yes" if figure.holds else "no")
        peer = "" if figure.peer_value is None else f"{figure.peer_value:,.0f}"
        table.add_row(
            figure.name, f"{figure.value:,.1f}", figure.unit, peer, figure.goal or "", holds
        )
    Console().print(table)
    write_results("registry", found, sizes=vars(sizes), out=options.out)


if __name__ == "__main__":
    main()
