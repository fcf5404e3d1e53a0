"""Does the loop make the model better? The demo, run over several seeds.

    python -m benchmarks.bench_demo [--quick] [--seeds 1 2 3 4 5] [--out FILE]

`--quick` runs one round of one seed, to see that it runs; its figures say little.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.results import Figure, at_least, write_results

GOAL_GAIN = 0.50
GOAL_SECONDS = 300.0
LARGEST_SHARE_OF_ONE_ROUND = 0.8
"""More of the whole gain than this in one round is no climb."""


def main() -> None:
    """Run the demo in a process of its own for each seed, and file what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    console = Console()
    summaries = []
    for seed in seeds:
        summaries.append(run(seed, num_rounds=1 if arguments.quick else 3))
        console.print(describe(summaries[-1]), highlight=False)
    path = write_results(
        "demo",
        figures(summaries),
        sizes={"seeds": seeds, "runs": summaries},
        out=arguments.out,
    )
    console.print(f"written: {path}", highlight=False)


def run(seed: int, *, num_rounds: int) -> dict[str, Any]:
    """The summary of one demo. Raises `RuntimeError` where it left none."""
    with tempfile.TemporaryDirectory(prefix="kalimtak-") as home:
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "flows.cli",
                "demo",
                "--seed",
                str(seed),
                "--rounds",
                str(num_rounds),
            ],
            env=os.environ | {"KALIMTAK_HOME": home},
            check=False,
            capture_output=True,
            text=True,
        )
        path = Path(home) / "demo" / "summary.json"
        if not path.exists():
            raise RuntimeError(f"the demo ended with {result.returncode}:\n{result.stderr[-2000:]}")
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def describe(summary: Mapping[str, Any]) -> str:
    """One line on one run."""
    climb = [summary["base"]["rated_good"], *_climb(summary)]
    steps = " → ".join(f"{share:.0%}" for share in climb)
    return f"seed {summary['seed']}: rated good {steps}, {summary['seconds']:.0f} s"


def figures(summaries: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Medians and the worst over all runs."""
    gains = [summary["gain"] for summary in summaries]
    seconds = [summary["seconds"] for summary in summaries]
    largest = [_largest_step(summary) for summary in summaries]
    return [
        Figure("rated good, base model (median)", median(_base(s) for s in summaries), "share"),
        Figure(
            "rated good, champion (median)",
            median(_base(s) + s["gain"] for s in summaries),
            "share",
        ),
        at_least("gain, median", median(gains), "share", GOAL_GAIN),
        at_least("gain, worst seed", min(gains), "share", GOAL_GAIN),
        Figure(
            "share of the gain in the largest step, worst seed",
            max(largest),
            "share",
            goal=f"≤ {LARGEST_SHARE_OF_ONE_ROUND:g}",
            holds=max(largest) <= LARGEST_SHARE_OF_ONE_ROUND,
        ),
        Figure(
            "runs with a target tool worse than at the start",
            sum(bool(summary["worse_tools"]) for summary in summaries),
            "runs",
            goal="0",
            holds=not any(summary["worse_tools"] for summary in summaries),
        ),
        Figure(
            "duration, longest run",
            max(seconds),
            "s",
            goal=f"≤ {GOAL_SECONDS:g}",
            holds=max(seconds) <= GOAL_SECONDS,
        ),
    ]


def _base(summary: Mapping[str, Any]) -> float:
    return float(summary["base"]["rated_good"])


def _climb(summary: Mapping[str, Any]) -> list[float]:
    """Share rated good of the champion after each round."""
    shares, current = [], _base(summary)
    for turn in summary["rounds"]:
        if turn["decision"] == "promote":
            current = turn["rated_good"]
        shares.append(current)
    return shares


def _largest_step(summary: Mapping[str, Any]) -> float:
    shares = [_base(summary), *_climb(summary)]
    steps = [after - before for before, after in itertools.pairwise(shares)]
    gain = shares[-1] - shares[0]
    return max(steps) / gain if gain > 0 else 0.0


if __name__ == "__main__":
    main()
