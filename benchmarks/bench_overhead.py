"""What a retraining costs around its steps: python -m benchmarks.bench_overhead [--quick]

A whole retraining of the embedded base with `tiny_cpu`, from the start of the flow to the
challenger, on a Ray that is warm (a first one, not counted, has just ended on it), by the
clock. The steps are the optimizer's, checkpoints included; all else is told part by part.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from benchmarks.demo_world import log, use
from benchmarks.results import Figure, write_results
from flows import environment
from flows.context import Context, open_context
from flows.steps import PlainSteps
from registry import by_hand, versions
from registry.settings import load_settings

GOAL_S = 30.0
T = TypeVar("T")


class TimedSteps(PlainSteps):
    """Takes the time of every step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, step: Callable[[], T], *, retries: int = 0) -> T:
        """Carry out `step`."""
        started = time.perf_counter()
        try:
            return super().run(name, step, retries=retries)
        finally:
            self.seconds[name] = time.perf_counter() - started


def main() -> None:
    """Retrain, print where the time went and file it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.requests = 1, 300
    logging.getLogger("ray").setLevel(logging.ERROR)
    runs = measure(arguments)
    figures = compare(runs)
    path = write_results(
        "overhead",
        figures,
        sizes={"rounds": arguments.rounds, "requests": arguments.requests, "runs": runs},
        out=arguments.out,
    )
    for figure in figures:
        sys.stdout.write(f"{figure.name}: {figure.value:.2f} {figure.unit}\n")
    sys.stdout.write(f"written: {path}\n")


def measure(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """The seconds of each part of each round."""
    with tempfile.TemporaryDirectory(prefix="kalimtak-") as home:
        settings = load_settings(
            {
                "KALIMTAK_HOME": home,
                "KALIMTAK_TRAINING__MIN_SAMPLES": "20",
                "KALIMTAK_EXPERIMENT__RETRY_HOURS": "0",  # one round after the other
            },
            directory=Path(home),
        )
        environment.apply(settings)
        from flows.runtime import ray_session  # Ray takes its token when it is imported

        context = open_context(settings)
        log(context, use(arguments.requests, seed=1))
        with ray_session(settings):
            _retrain(context)
            return [_retrain(context) for _ in range(arguments.rounds)]


def _retrain(context: Context) -> dict[str, float]:
    from flows.ray_learner import RayLearner
    from flows.retrain import run_retrain

    steps = TimedSteps()
    started = time.perf_counter()
    result = run_retrain(
        context, RayLearner(context.settings), workload="default", force=True, steps=steps
    )
    total = time.perf_counter() - started
    if result.standing != "challenger":
        raise RuntimeError(f"the retraining ended as {result.status}: {result.reason}")
    told = _told(context, result.version or "")
    with context.database.write() as session:
        by_hand.roll_back(session, context.act("bench", "the next one"), workload="default")
    training, preparing = told["seconds training"], told["seconds preparing"]
    named = sum(steps.seconds.values())
    return {
        "total": total,
        "steps": training,
        "curate": steps.seconds["curate"],
        "build dataset": steps.seconds["build-dataset"],
        "start workers, meet, take the result": told["seconds"] - training - preparing,
        "import, load, encode in workers": preparing,
        "around Ray Train": steps.seconds["train"] - told["seconds"],
        "evaluate: three arms answer": steps.seconds["evaluate"],
        "publish and register": steps.seconds["publish"] + steps.seconds["register"],
        "between the steps": total - named,
    }


def _told(context: Context, version: str) -> dict[str, Any]:
    with context.database.read() as session:
        found: dict[str, Any] = versions.get(session, version).evaluation["training"]
    return found


def compare(runs: Sequence[dict[str, float]]) -> list[Figure]:
    """Medians of every part, and of all but the steps against the goal."""
    overhead = median(run["total"] - run["steps"] for run in runs)
    figures = [
        Figure("all but the steps", overhead, "s", goal=f"≤ {GOAL_S:g}", holds=overhead <= GOAL_S),
    ]
    return figures + [Figure(name, median(run[name] for run in runs), "s") for name in runs[0]]


if __name__ == "__main__":
    main()
