"""The training step beside its peers: python -m benchmarks.bench_train [--quick] [--device cuda]

Useful tokens (of the conversations, padding left out) per CPU-second, or per second on a
GPU; peak memory; and the held-out loss after the same conversations, against TRL's
SFTTrainer (as it comes, tuned, with packing, padding-free) and a plain loop with
transformers and PEFT. Same model, data and LoRA; every arm in a process of its own, in
turns, the median of the rounds. TRL's arms are left out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.results import Figure, write_results
from benchmarks.training_arms import ARMS, SIZES, Outcome, Task, conversations

GOALS = {"trl-tuned": 4.0, "plain": 2.0}
"""How many times as fast as each peer; TRL's fastest arm counts as TRL tuned."""
MEMORY_GOAL = 0.5
"""Of the peak of the TRL arm that takes least."""
Outcomes = Mapping[str, Sequence[Outcome]]


def main() -> None:
    """Run the arms, print what came of them and file it."""
    arguments = _arguments()
    arms = [arm for arm in arguments.arms if not arm.startswith("trl") or find_spec("trl")]
    outcomes: dict[str, list[Outcome]] = {arm: [] for arm in arms}
    for _ in range(arguments.rounds):
        for arm in arms:
            outcomes[arm].append(run(_task(arguments, arm)))
            sys.stdout.write(f"{arm}: {_speed(outcomes[arm][-1]):.0f} tokens/s\n")
    figures = compare(outcomes, cuda=arguments.device == "cuda")
    for figure in figures:
        sys.stdout.write(_line(figure) + "\n")
    task = _task(arguments, "ours")
    data = conversations(task)
    path = write_results(
        "train",
        figures,
        sizes={
            **asdict(task),
            "rounds": arguments.rounds,
            "tokens": sum(len(example.input_ids) for example in data),
            "learned_tokens": sum(example.num_learned for example in data),
            "outcomes": {arm: [asdict(each) for each in runs] for arm, runs in outcomes.items()},
        },
        out=arguments.out,
    )
    sys.stdout.write(f"written: {path}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see that it runs")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", choices=[*SIZES], help="34M on a CPU, 0.6B on a GPU")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="of the base")
    parser.add_argument("--examples", type=int, help="conversations, one pass over them")
    parser.add_argument("--batch", type=int, default=16, help="conversations per step")
    parser.add_argument("--tokens-per-pass", type=int, help="of our arm")
    parser.add_argument("--checkpointing", action="store_true", help="in our arm")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=[*ARMS],
        default=[arm for arm in ARMS if arm != "ours-compiled"],
        help="all but ours-compiled, unless named",
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cuda = arguments.device == "cuda"
    arguments.size = arguments.size or ("tiny" if arguments.quick else "0.6B" if cuda else "34M")
    arguments.dtype = arguments.dtype or ("bfloat16" if cuda else "float32")
    arguments.examples = arguments.examples or (512 if cuda else 32 if arguments.quick else 64)
    arguments.tokens_per_pass = arguments.tokens_per_pass or (8192 if cuda else 1024)
    if arguments.quick:
        arguments.arms, arguments.batch = ["ours", "plain"], 8
    return arguments


def _task(arguments: argparse.Namespace, arm: str) -> Task:
    return Task(
        arm=arm,
        size=arguments.size,
        device=arguments.device,
        dtype=arguments.dtype,
        num_examples=arguments.examples,
        batch=arguments.batch,
        tokens_per_pass=arguments.tokens_per_pass,
        checkpointing=arguments.checkpointing and arm == "ours",
    )


def run(task: Task) -> Outcome:
    """One arm in a process of its own. Raises `RuntimeError` with the end of what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_arms", json.dumps(asdict(task))],
        env=os.environ | {"OMP_NUM_THREADS": "1" if task.device == "cpu" else "4"},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"arm {task.arm} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def compare(outcomes: Outcomes, *, cuda: bool) -> list[Figure]:
    """Medians of every arm, and ours against the best of its peers."""
    unit = "tokens/s" if cuda else "tokens/CPU-s"
    speeds = {arm: median(_speed(run) for run in runs) for arm, runs in outcomes.items()}
    peaks = {arm: median(run.peak_bytes for run in runs) / 2**20 for arm, runs in outcomes.items()}
    losses = {arm: median(run.loss for run in runs) for arm, runs in outcomes.items()}
    figures = [Figure(f"speed, {arm}", speed, unit) for arm, speed in speeds.items()]
    figures += [Figure(f"peak memory, {arm}", peak, "MiB") for arm, peak in peaks.items()]
    figures += [Figure(f"held-out loss, {arm}", loss, "nats") for arm, loss in losses.items()]
    if "ours" not in outcomes:
        return figures
    rivals = [arm for arm in outcomes if arm.startswith("trl")]
    if rivals:
        fastest = max(rivals, key=speeds.__getitem__)
        figures.append(_faster(speeds, fastest, GOALS["trl-tuned"], unit))
        leanest = min(rivals, key=peaks.__getitem__)
        share = peaks["ours"] / peaks[leanest]
        figures.append(
            Figure(
                f"peak memory against TRL's leanest ({leanest})",
                peaks["ours"],
                "MiB",
                peer=leanest,
                peer_value=peaks[leanest],
                goal=f"≤ {MEMORY_GOAL:g} of it",
                holds=share <= MEMORY_GOAL,
            )
        )
    if "plain" in outcomes:
        figures.append(_faster(speeds, "plain", GOALS["plain"], unit))
    return figures


def _faster(speeds: Mapping[str, float], peer: str, goal: float, unit: str) -> Figure:
    return Figure(
        f"speed against {peer}",
        speeds["ours"],
        unit,
        peer=peer,
        peer_value=speeds[peer],
        goal=f"≥ {goal:g} times",
        holds=speeds["ours"] >= goal * speeds[peer],
    )


def _speed(outcome: Outcome) -> float:
    return outcome.tokens / outcome.seconds


def _line(figure: Figure) -> str:
    text = f"{figure.name}: {figure.value:.4g} {figure.unit}"
    if figure.ratio is None:
        return text
    held = "holds" if figure.holds else "missed"
    return f"{text}, {figure.ratio:.2f} times {figure.peer} (goal {figure.goal}: {held})"


if __name__ == "__main__":
    main()
