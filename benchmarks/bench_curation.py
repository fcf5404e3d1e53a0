"""What curation costs: python -m benchmarks.bench_curation [--rows N] [--quick] [--out FILE]

The whole pipeline on a database of synthetic interactions with planted near-duplicates, personal
data and insults, in a process of its own whose peak memory is read at its end; the seed's steps
alone (quality, feedback, exact duplicates, ChatML) beside a row-by-row generator of its design;
near-duplicate removal beside datasketch and semhash on the same texts, with recall and precision.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.curation_data import INSULTS, PII, Writer, planted
from benchmarks.deduplicators import compare_deduplicators
from benchmarks.results import Figure, write_results
from benchmarks.row_by_row import generate

START = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = (100_000, 1_000_000)
GOAL_ROWS = 1_000_000
PEER_TEXTS = 20_000
ROUNDS = 3
COLUMNS = (
    "id, user_id, input_text, structured_prompt, model_output, quality_score, user_feedback,"
    " target_tool, language, feedback_at, created_at, updated_at"
)
FRAME_ROWS = 5_000
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
INSERT = f"INSERT INTO user_interactions ({COLUMNS}) VALUES ({','.join('?' * 12)})"


def rows(number: int, seed: int = 1) -> Iterator[tuple[object, ...]]:
    """Interactions: a tenth near-duplicates, 3 % with personal data, 0.3 % with insults."""
    write = Writer(seed)
    rng, earlier, kinds = write.rng, [], sorted(PII)
    for place in range(number):
        language = "ar" if rng.random() < 0.15 else "en"
        luck = rng.random()
        if luck < 0.1 and earlier:
            text, answer = (write.edited(old, language) for old in rng.choice(earlier))
        else:
            text = write.prose(language, least=10, most=30)
            answer = write.prose(language, least=20, most=60)
            if luck < 0.13:
                text = planted(write, rng.choice(kinds))[1]
            elif luck < 0.133:
                answer += " " + rng.choice(INSULTS)
            if len(earlier) < 20_000:
                earlier.append((text, answer))
        at = (START + timedelta(seconds=place)).strftime("%Y-%m-%d %H:%M:%S.000000")
        quality, thumb = round(rng.betavariate(6, 2), 3), rng.choice((1, 1, 1, 0, -1))
        user, tool = f"u{rng.randrange(number // 20 + 1)}", rng.choice(("email", "code", "report"))
        yield (
            f"i{place:09}", user, text, answer, answer, quality, thumb, tool, language, at, at, at,
        )  # fmt: skip


def fill(path: Path, number: int) -> None:
    """A database with so many rated interactions."""
    from registry.db import open_database

    database = open_database(f"sqlite:///{path}")
    with database.write() as session:
        connection = session.connection()
        stamp = START.strftime("%Y-%m-%d %H:%M:%S.000000")
        connection.exec_driver_sql(
            "INSERT INTO workloads (name, created_at) VALUES ('default', ?)", (stamp,)
        )
        users = [(f"u{place}", stamp) for place in range(number // 20 + 1)]
        connection.exec_driver_sql("INSERT INTO users (id, created_at) VALUES (?, ?)", users)
        block = []
        for row in rows(number):
            block.append(row)
            if len(block) == 20_000:
                connection.exec_driver_sql(INSERT, block)
                block = []
        if block:
            connection.exec_driver_sql(INSERT, block)
    database.close()


def run_pipeline(path: Path) -> None:
    """Curate the database and build a dataset; for a process of its own."""
    from flows.curation.dataset import build_dataset
    from flows.curation.engine import LocalEngine, usual_workers
    from flows.curation.pipeline import curate
    from registry.artifacts import ArtifactStore
    from registry.clock import new_id, utc_now
    from registry.crypto import Keyring
    from registry.db import open_database
    from registry.settings_curation import CurationSettings

    settings, database = CurationSettings(), open_database(f"sqlite:///{path}")
    keyring, begin = Keyring(bytes(32)), time.perf_counter()
    with LocalEngine(num_workers=usual_workers()) as engine:
        report = curate(
            database,
            workload="default",
            settings=settings,
            keyring=keyring,
            clock=utc_now,
            new_id=new_id,
            engine=engine,
        )
        beside = sum(peak_mb(child.pid) for child in multiprocessing.active_children())
    curated = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore((Path(folder) / "store").as_uri(), cache=Path(folder) / "cache")
        build_dataset(
            database,
            store,
            workload="default",
            settings=settings,
            keyring=keyring,
            folder=Path(folder) / "dataset",
            clock=utc_now,
            new_id=new_id,
        )
    _tell(
        curate_s=curated - begin,
        total_s=time.perf_counter() - begin,
        cpu_s=time.process_time()
        + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        + resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime,
        counts=report.counts,
        peak_mb=beside + peak_mb("self"),
    )


def run_seed_steps(path: Path, *, ours: bool) -> None:
    """The seed's steps alone, ours or the row-by-row generator's; for a process of its own."""
    if ours:  # what a process imports once is not the price of a row
        from sqlalchemy.orm import configure_mappers

        import flows.curation.reading
        import flows.curation.steps  # noqa: F401
        import registry.db
        import registry.models
        import registry.reading  # noqa: F401

        configure_mappers()
    begin = time.perf_counter()
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as out:
        number = (_ours if ours else generate)(path, out.name)
    _tell(total_s=time.perf_counter() - begin, counts={"written": number})


def _ours(path: Path, out: str) -> int:
    """The pure steps on frames; the database filters, as it does for the generator."""
    import polars as pl
    from sqlmodel import col, select

    from flows.curation import steps
    from registry.db import Database
    from registry.models import UserInteraction as Row
    from registry.reading import iter_frames

    known, written, turn = Known(), 0, pl.struct
    query = select(Row.input_text, Row.structured_prompt).where(
        col(Row.quality_score) >= 0.7, col(Row.user_feedback) >= 1
    )
    with open(out, "wb") as file:
        frames = iter_frames(Database(f"sqlite:///{path}"), query, batch_rows=FRAME_ROWS)
        for frame in frames:
            plain = frame.select(
                pl.concat_str(*map(steps.plain, frame.columns), separator="\x1f")
            ).to_series()
            kept = frame.filter(known.add(plain.hash(1).to_numpy(), plain.hash(2).to_numpy()))
            written += kept.height
            kept.select(
                messages=pl.concat_arr(
                    turn(role=pl.lit("user"), content="input_text"),
                    turn(role=pl.lit("assistant"), content="structured_prompt"),
                )
            ).write_ndjson(file)
    return written


class Known:
    """Contents that were seen, by 128 bits of their hash: few runs, each sorted by 64 of them."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def add(self, first: Hashes, second: Hashes) -> Flags:
        """Which of these are new; they are known from now on."""
        order = np.argsort(first, kind="stable")
        hashes = np.stack([first, second])[:, order]
        is_new = np.ones(len(first), dtype=bool)
        is_new[1:] = (hashes[:, 1:] != hashes[:, :-1]).any(axis=0)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run[0], hashes[0]), run.shape[1] - 1)
            is_new &= (run[:, place] != hashes).any(axis=0)
        self._keep(hashes[:, is_new])
        found = np.empty_like(is_new)
        found[order] = is_new
        return found

    def _keep(self, run: Hashes) -> None:
        """Merge runs of like size, so that each hash is moved a few times only."""
        while self._runs and self._runs[-1].shape[1] <= 2 * run.shape[1]:
            both = np.concatenate([self._runs.pop(), run], axis=1)
            run = both[:, np.argsort(both[0], kind="stable")]
        if run.shape[1]:
            self._runs.append(run)


def peak_mb(process: object) -> float:
    """The most memory that a process has had. Not getrusage: that is inherited from the parent."""
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _tell(**found: object) -> None:
    sys.stdout.write("RESULT " + json.dumps({"peak_mb": peak_mb("self"), **found}) + "\n")


def measure(what: str, path: Path) -> dict[str, float]:
    """Run one part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_curation", "--part", what, str(path)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}; why stands above")
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    return found


def pipeline_figures(number: int, folder: Path) -> tuple[list[Figure], float]:
    """The whole pipeline and the seed's steps on `number` interactions, and its processor time."""
    path, copy = folder / f"{number}.db", folder / f"{number}-curated.db"
    if not path.exists():
        fill(path, number)
    rounds = [(measure("ours", path), measure("generator", path)) for _ in range(ROUNDS)]
    ours, theirs = (
        {
            name: statistics.median(run[side][name] for run in rounds)
            for name in ("total_s", "peak_mb")
        }
        for side in (0, 1)
    )
    shutil.copy(path, copy)
    whole = measure("pipeline", copy)
    for left in folder.glob(f"{copy.name}*"):
        left.unlink()
    is_goal = number == GOAL_ROWS
    limit, memory, cores = 120, 1536, 2
    figures = [
        Figure(
            f"whole pipeline, {number} rows", whole["total_s"], "s",
            goal=f"≤ {limit}" if is_goal else None,
            holds=whole["total_s"] <= limit if is_goal else None,
        ),
        Figure(
            f"whole pipeline, {number} rows: processor time, a row", whole["cpu_s"] / number * 1e6,
            "µs", goal=f"≤ {limit * cores}" if is_goal else None,
            holds=whole["cpu_s"] <= cores * limit if is_goal else None,
        ),
        Figure(
            f"whole pipeline, {number} rows: memory", whole["peak_mb"], "MiB",
            goal=f"≤ {memory}", holds=whole["peak_mb"] <= memory,
        ),
        Figure(
            f"seed's steps, {number} rows", number / ours["total_s"], "rows/s",
            peer="row-by-row generator", peer_value=number / theirs["total_s"],
            goal="≥ 2 times", holds=theirs["total_s"] >= 2 * ours["total_s"],
        ),
        Figure(
            f"seed's steps, {number} rows: memory", ours["peak_mb"], "MiB",
            peer="row-by-row generator", peer_value=theirs["peak_mb"],
            goal="≤ a fifth", holds=ours["peak_mb"] <= theirs["peak_mb"] / 5,
        ),
    ]  # fmt: skip
    return figures, whole["cpu_s"]


def marginal_figures(spent: Sequence[tuple[int, float]]) -> list[Figure]:
    """What each further row costs from one size to the next: how flat it is."""
    figures: list[Figure] = []
    for (few, less), (many, more) in pairwise(spent):
        cost = (more - less) / (many - few) * 1e6
        first = figures[0].value if figures else None
        figures.append(
            Figure(
                f"whole pipeline: processor time of a further row, {few} to {many}", cost, "µs",
                goal=None if first is None else "flat: ≤ 1.25 times the first",
                holds=None if first is None else cost <= 1.25 * first,
            )
        )  # fmt: skip
    return figures


def main() -> None:
    """Measure, print and file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--texts", type=int, default=PEER_TEXTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="keep the databases here, for the next run")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part, path = options.part[0], Path(options.part[1])
        if part == "pipeline":
            run_pipeline(path)
        else:
            run_seed_steps(path, ours=part == "ours")
        return
    sizes = [3_000] if options.quick else options.rows
    texts = 1_000 if options.quick else options.texts
    figures = compare_deduplicators(texts)
    with tempfile.TemporaryDirectory() as folder:
        spent = []
        for size in sorted(sizes):
            found, cpu_s = pipeline_figures(size, options.folder or Path(folder))
            figures += found
            spent.append((size, cpu_s))
        figures += marginal_figures(spent)
    table = Table("what", "value", "unit", "peer", "its value", "goal", "holds")
    for figure in figures:
        peer = "" if figure.peer_value is None else f"{figure.peer_value:,.3f}"
        table.add_row(
            figure.name, f"{figure.value:,.3f}", figure.unit, figure.peer or "", peer,
            figure.goal or "", {None: "", True: "yes", False: "no"}[figure.holds],
        )  # fmt: skip
    Console().print(table)
    written = write_results(
        "curation", figures, sizes={"rows": sizes, "texts": texts}, out=options.out
    )
    Console().print(f"written: {written}")


if __name__ == "__main__":
    main()
