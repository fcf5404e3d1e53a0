"""Does a better model win, and a worse one never? Whole experiments, simulated by the thousand.

    python -m benchmarks.bench_decisions [--quick] [--runs N] [--out FILE]

Every world of `decision_worlds` is decided by ours, by the plain rule of the seeds (≥ 5 %
better at 10 % of the traffic, ≥ 100 rated, ≥ 48 h), by a t-test that is looked at every 15
minutes, and by a group-sequential test with daily looks (O'Brien & Fleming); the last two at
50 %. In worlds where something is to be found, what makes decisions faster is left out in turn,
and an adaptive share tried. Then several challengers at once, and the triggers, hour by hour
over quarters. `--quick` shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import decision_several, decision_triggers
from benchmarks.decision_rules import PROMOTED, ROLLED_BACK, Ours, Outcome, play, play_peers
from benchmarks.decision_several import CROWDS
from benchmarks.decision_worlds import BAD_WORLDS, BETTER_WORLDS, SAME_WORLDS, World
from benchmarks.results import Figure, at_least, write_results
from registry.settings_decisions import ExperimentSettings

SETTINGS = ExperimentSettings()
MOST_FALSE, LEAST_POWER, MOST_REQUESTS = 0.01, 0.95, 100
WEEK = 168.0
NUM_PEERS = 80
"""Experiments of each world that the other rules and variants of ours decide, at most."""
NUM_CROWDS = 200
"""Trials of several challengers, at most."""
WITHOUT = {
    "ours, without unrated answers": {"use_unrated": False},
    "ours, without the time before": {"use_prior": False},
    "ours, without either": {"use_unrated": False, "use_prior": False},
}
ADAPTIVE = "ours, adaptive share"
ADAPTIVE_SHARES, SURE_OF = (0.1, 0.25, 0.5, 0.75, 0.9), (0.9, 0.97)
"""Beyond a half once it is so likely that the challenger is better: Thompson sampling in steps."""
VARIED = ("no difference", "10% better, 20% rated, 12 h late", "10% better, heavy users")
"""Worlds in which the variants of ours are tried."""
PEERED = (
    *VARIED,
    "no difference, heavy users",
    "no difference, novelty of 10% fades",
    "10% better",
    "twice the latency",
    "better, breaks after a day",
    "20% worse",
)
"""Worlds in which the other rules are tried."""


def main() -> None:
    """Simulate all worlds, print the table and file the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=1000, help="Experiments of each world.")
    parser.add_argument("--quarters", type=int, default=200, help="Quarters of each trigger world.")
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--parts", type=Path, help="Keep each part here, and go on where a run was broken off."
    )
    arguments = parser.parse_args()
    console = Console()
    num = 10 if arguments.quick else arguments.runs
    quarters = 4 if arguments.quick else arguments.quarters
    worlds: tuple[World, ...] = (*SAME_WORLDS, *BETTER_WORLDS, *BAD_WORLDS)
    if arguments.quick:
        worlds = (BAD_WORLDS[0], BAD_WORLDS[2])
    parts = {
        world.name: Part(runs_of(world, num), partial(part_of, world, runs_of(world, num)))
        for world in worlds
    }
    for crowd in CROWDS[-1:] if arguments.quick else CROWDS:
        few = min(num, NUM_CROWDS)
        parts[crowd.name] = Part(few, partial(decision_several.figures, few, SETTINGS, crowd))
    parts["triggers"] = Part(quarters, partial(decision_triggers.figures, quarters, console))
    done = carried_out(parts, arguments.parts, console)
    path = write_results(
        "decisions",
        [figure for part in done.values() for figure in part.compute()],
        sizes={
            "runs": num,
            **{f"runs of {name}": part.runs for name, part in done.items() if part.runs != num},
            "runs of other rules": min(num, NUM_PEERS),
            "settings": SETTINGS.model_dump(mode="json"),
            "worlds": [vars(world) for world in worlds],
        },
        out=arguments.out,
    )
    console.print(f"written: {path}", highlight=False)


@dataclass(frozen=True)
class Part:
    """What is simulated at a time: how often (quarters, of the triggers), and what it gives."""

    runs: int
    compute: Callable[[], list[Figure]]


def carried_out(parts: Mapping[str, Part], kept: Path | None, console: Console) -> dict[str, Part]:
    """The parts with their figures at hand; what is `kept` in the file is not computed again.

    It keeps the number of runs that it had.
    """
    done: dict[str, Part] = {}
    before = kept.read_text("utf-8").splitlines() if kept is not None and kept.exists() else []
    rows = {row["part"]: row for row in map(json.loads, before)}
    for name, part in parts.items():
        began = time.process_time()
        if name in rows:
            row = rows[name]
            figures, runs = [Figure(**figure) for figure in row["figures"]], row["runs"]
        else:
            figures, runs = part.compute(), part.runs
            row = {"part": name, "runs": runs, "figures": [asdict(each) for each in figures]}
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        console.print(f"{time.process_time() - began:5.0f} s  {name}", highlight=False)
        done[name] = Part(runs, figures.copy)
    return done


def runs_of(world: World, num: int) -> int:
    """Fewer where more is asked, or where looks at people are many: no world takes very long."""
    looks = 0.25 if world.faulty_users or world.latency_spread > World.latency_spread else 1
    return max(10, round(num * looks * min(1, World.per_day / world.per_day)))


def part_of(world: World, num: int) -> list[Figure]:
    """What is filed of `num` trials in one world."""
    outcomes = simulate(world, num)
    table = Table("rule", "promoted", "in 7 days", "stopped", "hours", "rated", "bad")
    for name, outcome in outcomes.items():
        table.add_row(name, *cells(outcome))
    Console().print(table)
    return figures_of(world, outcomes)


def simulate(world: World, num: int, seed: int = 1) -> dict[str, Outcome]:
    """What each rule does in `num` experiments of the world."""
    rules = {"ours": Ours(world, num, SETTINGS)}
    few = min(num, NUM_PEERS)
    if world.name in VARIED:
        adaptive = SETTINGS.model_copy(update={"shares": ADAPTIVE_SHARES})
        rules[ADAPTIVE] = Ours(world, few, adaptive, sure_of=SURE_OF)
    if world.is_better and world.name in VARIED:
        rules |= {
            name: Ours(
                world,
                few,
                SETTINGS,
                use_unrated=parts.get("use_unrated", True),
                use_prior=parts.get("use_prior", True),
            )
            for name, parts in WITHOUT.items()
        }
    play(world, seed, list(rules.values()))
    ours = {name: rule.outcome for name, rule in rules.items()}
    return {**ours, **(play_peers(world, few, seed) if world.name in PEERED else {})}


def _oracle(world: World, num: int = 4000) -> Figure:
    """What a test needs that knows all about latencies but which version is slow.

    Against "at most `latency_tolerance` times the champion's", the likelihood ratio at the truth
    needs fewest answers; it is a random walk with drift d²/2, d the shift in standard deviations.
    """
    spread = math.hypot(world.latency_sigma, world.latency_spread)
    shift = math.log(world.latency_factor / SETTINGS.latency_tolerance) / spread
    steps = shift * np.random.default_rng(0).normal(size=(num, 2000)) + shift**2 / 2
    over = np.cumsum(steps, axis=1) > -math.log(SETTINGS.guardrail_alpha)
    needed = float(np.quantile(over.argmax(axis=1) + 1, 0.95))
    return Figure(f"{world.name}, the best test that there can be: requests", needed, "requests")


def cells(outcome: Outcome) -> Iterable[str]:
    """One row of the table."""
    promoted = outcome.action == PROMOTED
    yield f"{promoted.mean():.1%}"
    yield f"{(promoted & (outcome.hours <= WEEK)).mean():.1%}"
    yield f"{((outcome.action != PROMOTED) & (outcome.action > 0)).mean():.1%}"
    yield f"{np.median(outcome.hours):.0f}"
    yield f"{np.median(outcome.rated):.0f}"
    yield f"{outcome.bad.mean():.0f}"


def figures_of(world: World, outcomes: dict[str, Outcome]) -> list[Figure]:
    """What is filed of a world."""
    found: list[Figure] = []
    ours = outcomes["ours"]
    for name, outcome in outcomes.items():
        promoted = outcome.action == PROMOTED
        share = float(promoted.mean())
        key = f"{world.name}, {name}"
        if name == "ours" and not world.is_better:
            goal = f"≤ {MOST_FALSE:g}"
            found.append(
                Figure(f"{key}: promoted", share, "share", goal=goal, holds=share <= MOST_FALSE)
            )
        elif name == "ours" and world.name == "10% better":
            in_time = float((promoted & (outcome.hours <= WEEK)).mean())
            found.append(at_least(f"{key}: promoted in 7 days", in_time, "share", LEAST_POWER))
        else:
            found.append(Figure(f"{key}: promoted", share, "share"))
        if world.is_better:
            in_time = float((promoted & (outcome.hours <= WEEK)).mean())
            found.append(Figure(f"{key}: in 7 days", in_time, "share"))
        found += [
            Figure(f"{key}: median hours", float(np.median(outcome.hours)), "h"),
            Figure(f"{key}: median ratings", float(np.median(outcome.rated)), "ratings"),
        ]
        if world.name in VARIED and name in ("ours", ADAPTIVE):
            answers = float(np.median(outcome.treated))
            found.append(Figure(f"{key}: median answers of the challenger", answers, "answers"))
        if world.is_bad:
            found.append(
                Figure(
                    f"{key}: bad answers of the challenger",
                    float(outcome.bad.mean()),
                    "answers",
                    peer="ours",
                    peer_value=float(ours.bad.mean()),
                )
            )
    stopped = ours.action == ROLLED_BACK
    found.append(
        Figure(f"{world.name}, ours: rolled back by a guardrail", float(stopped.mean()), "share")
    )
    if world.latency_factor > 1:
        found.append(_oracle(world))
    if world.is_bad and world.broken_lift == 0:
        requests = float(np.quantile(np.where(stopped, ours.harmed, np.inf), 0.95))
        found.append(
            Figure(
                f"{world.name}, ours: its requests until rollback, 95% of runs",
                requests,
                "requests",
                goal=f"≤ {MOST_REQUESTS}",
                holds=requests <= MOST_REQUESTS,
            )
        )
    return found


if __name__ == "__main__":
    main()
