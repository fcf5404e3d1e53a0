"""Which objective learns best from people: python -m benchmarks.bench_objectives [--seeds 1 2 …]

Each objective trains on the same feedback of the demo's people (`benchmarks.learning_world`),
from the same adapter, for the same number of steps, at several learning rates. The rate that
does best on requests for choosing is its own; what is compared at that rate is the share of
other held-out requests whose greedy answer the rubric calls good, over all and on the worst
target tool.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.learning_world import (
    CORRECTION_RATE,
    MAX_TOKENS,
    feedback,
    good,
    requests,
    trained,
)
from benchmarks.results import Figure, write_results
from training.base import load_base, load_tokenizer
from training.base_model.evaluate import answers
from training.config import load_recipe
from training.encoding import Encoded, encode_all
from training.schedule import ObjectiveName

OBJECTIVES: tuple[ObjectiveName, ...] = ("sft", "dpo", "kto", "mixed")


def main() -> None:
    """Train every objective on every seed's feedback and file what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--requests", type=int, default=600, help="asked and rated per seed")
    parser.add_argument("--held-out", type=int, default=240)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-3, 3e-4])
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument(
        "--corrections", type=float, default=CORRECTION_RATE, help="share of the disappointed"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.requests = [1], 60
        arguments.held_out, arguments.steps, arguments.rates = 24, 2, [3e-3]
    torch.set_num_threads(1)
    runs = [_run(seed, arguments) for seed in arguments.seeds]
    figures = compare(runs)
    path = write_results(
        "objectives",
        figures,
        sizes={key: value for key, value in vars(arguments).items() if key != "out"}
        | {"runs": runs},
        out=arguments.out,
    )
    for figure in figures:
        sys.stdout.write(f"{figure.name}: {figure.value:.3g} {figure.unit}\n")
    sys.stdout.write(f"written: {path}\n")


def _run(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    base, tokenizer = load_base("embedded"), load_tokenizer("embedded")
    asked = requests(f"people-{seed}", arguments.requests)
    held_out = requests(f"held-out-{seed}", arguments.held_out)
    choosing = requests(f"choosing-{seed}", arguments.held_out // 2)
    said = answers(base, tokenizer, asked, temperature=0.7, seed=seed)
    examples = feedback(
        asked,
        said,
        rng=random.Random(f"opinions-{seed}"),
        correction_rate=arguments.corrections,
    )
    encoded = encode_all(examples, tokenizer, max_tokens=MAX_TOKENS).examples
    found: dict[str, Any] = {
        "seed": seed,
        "pairs": sum(example.rejected is not None for example in examples),
        "accepted": sum(example.label is True for example in examples),
        "disliked": sum(example.label is False for example in examples),
        "base": good(base, tokenizer, held_out),
    }
    for name in OBJECTIVES:
        found[name] = {}
        for rate in arguments.rates:
            started = time.process_time()
            tuned = _trained(name, encoded, arguments, seed=seed, rate=rate)
            seconds = time.process_time() - started
            found[name][f"{rate:g}"] = {
                "cpu_s": seconds,
                "choosing": good(tuned, tokenizer, choosing)["rated_good"],
                **good(tuned, tokenizer, held_out),
            }
            share = found[name][f"{rate:g}"]["rated_good"]
            sys.stdout.write(f"seed {seed}, {name} at {rate:g}: {share:.3f}\n")
            sys.stdout.flush()
    return found


def _trained(
    name: ObjectiveName,
    data: Sequence[Encoded],
    arguments: argparse.Namespace,
    *,
    seed: int,
    rate: float,
) -> torch.nn.Module:
    recipe = load_recipe("tiny_cpu")
    objective = recipe.objective.model_copy(update={"name": name, "beta": arguments.beta})
    optimizer = recipe.optimizer.model_copy(update={"learning_rate": rate})
    recipe = recipe.model_copy(
        update={"seed": seed, "objective": objective, "optimizer": optimizer}
    )
    return trained(recipe, data, num_steps=arguments.steps)


def compare(runs: Sequence[dict[str, Any]]) -> list[Figure]:
    """Means over the seeds, each objective at its own rate beside SFT, seed by seed."""
    figures = [Figure("rated good, base", mean(run["base"]["rated_good"] for run in runs), "share")]
    rates = {name: _best_rate(runs, name) for name in OBJECTIVES}
    found = {name: [run[name][rates[name]] for run in runs] for name in OBJECTIVES}
    sft = [one["rated_good"] for one in found["sft"]]
    for name in OBJECTIVES:
        shares = [one["rated_good"] for one in found[name]]
        worst = mean(min(one["by_tool"].values()) for one in found[name])
        figures += [
            Figure(f"learning rate, {name}", float(rates[name]), ""),
            Figure(f"rated good, {name}", mean(shares), "share", peer="sft", peer_value=mean(sft)),
            Figure(f"rated good on the worst tool, {name}", worst, "share"),
            Figure(f"training, {name}", mean(one["cpu_s"] for one in found[name]), "CPU-s"),
        ]
        if name != "sft":
            figures += _over_sft(
                name, [ours - theirs for ours, theirs in zip(shares, sft, strict=True)]
            )
    return figures


def _best_rate(runs: Sequence[dict[str, Any]], name: ObjectiveName) -> str:
    return max(runs[0][name], key=lambda rate: mean(run[name][rate]["choosing"] for run in runs))


def _over_sft(name: ObjectiveName, gains: Sequence[float]) -> list[Figure]:
    figures = [
        Figure(f"{name} over sft, mean", mean(gains), "share"),
        Figure(f"{name} better than sft", sum(gain > 0 for gain in gains), "seeds"),
    ]
    if len(gains) > 1:
        error = stdev(gains) / len(gains) ** 0.5
        figures.append(Figure(f"{name} over sft, standard error", error, "share"))
    return figures


if __name__ == "__main__":
    main()
