"""Learning rate × rank × epochs: python -m benchmarks.bench_sweep [--quick] [--seeds 1 2]

The first round of a young installation: the demo's people (`benchmarks.learning_world`) ask
the embedded base, and what they accepted or corrected is learned with `tiny_cpu`, changed in
three places. Alpha stays twice the rank. What is compared is the share of held-out requests
whose greedy answer the rubric calls good, and whether the validation loss, which is all that
a real installation sees, would have chosen well.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from scipy.stats import spearmanr
from transformers import PreTrainedTokenizerBase

from benchmarks.learning_world import MAX_TOKENS, feedback, good, requests, trained
from benchmarks.results import Figure, write_results
from training.base import load_base, load_tokenizer
from training.base_model.evaluate import answers
from training.base_model.requests import Request
from training.config import Recipe, load_recipe
from training.encoding import Encoded, encode_all
from training.loop import mean_loss
from training.parallel import Alone
from training.setup import objective_of

VALIDATION_SHARE = 0.2


@dataclass(frozen=True, order=True)
class Choice:
    """One point of the sweep."""

    learning_rate: float
    rank: int
    epochs: float

    def __str__(self) -> str:
        return f"lr {self.learning_rate:g}, rank {self.rank}, {self.epochs:g} epochs"


@dataclass(frozen=True, kw_only=True)
class World:
    """What one seed's people left behind."""

    seed: int
    train: Sequence[Encoded]
    validation: Sequence[Encoded]
    held_out: Sequence[Request]
    tokenizer: PreTrainedTokenizerBase


def main() -> None:
    """Train every choice on every seed, print what came of it and file it."""
    arguments = _arguments()
    torch.set_num_threads(1)
    started = time.process_time()
    choices = [
        Choice(*each)
        for each in itertools.product(arguments.rates, arguments.ranks, arguments.epochs)
    ]
    worlds = [world(seed, arguments) for seed in arguments.seeds]
    runs = []
    for place, choice in itertools.product(worlds, choices):
        runs.append(_run(place, choice))
        found = runs[-1]
        sys.stdout.write(
            f"seed {place.seed}, {choice}: {found['rated_good']:.3f} rated good, "
            f"validation {found['validation_loss']:.3f}\n"
        )
        sys.stdout.flush()
    figures = compare(runs, choices)
    figures.append(Figure("whole sweep", time.process_time() - started, "CPU-s"))
    path = write_results(
        "sweep",
        figures,
        sizes={key: value for key, value in vars(arguments).items() if key != "out"}
        | {"examples": [len(place.train) for place in worlds], "runs": runs},
        out=arguments.out,
    )
    for figure in figures:
        sys.stdout.write(f"{figure.name}: {figure.value:.3f} {figure.unit}\n")
    sys.stdout.write(f"written: {path}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[7.5e-4, 1.5e-3, 3e-3, 6e-3])
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--epochs", type=float, nargs="+", default=[3, 6])
    parser.add_argument("--requests", type=int, default=240, help="asked and rated per seed")
    parser.add_argument("--held-out", type=int, default=120)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.rates, arguments.ranks = [1], [1.5e-3, 3e-3], [8]
        arguments.epochs, arguments.requests, arguments.held_out = [0.5], 60, 12
    return arguments


def world(seed: int, arguments: argparse.Namespace) -> World:
    """Ask, be rated, and keep what was accepted or corrected, as curation does."""
    base, tokenizer = load_base("embedded"), load_tokenizer("embedded")
    asked = requests(f"people-{seed}", arguments.requests)
    said = answers(base, tokenizer, asked, temperature=0.7, seed=seed)
    left = feedback(asked, said, rng=random.Random(f"opinions-{seed}"))
    learned = [example for example in left if example.label is not False]
    data = encode_all(learned, tokenizer, max_tokens=MAX_TOKENS).examples
    num_held_back = math.ceil(VALIDATION_SHARE * len(data))
    return World(
        seed=seed,
        train=data[num_held_back:],
        validation=data[:num_held_back],
        held_out=requests(f"held-out-{seed}", arguments.held_out),
        tokenizer=tokenizer,
    )


def recipe_of(choice: Choice, *, seed: int) -> Recipe:
    """`tiny_cpu` with `choice` in it."""
    recipe = load_recipe("tiny_cpu")
    lora = recipe.lora.model_copy(update={"rank": choice.rank, "alpha": 2.0 * choice.rank})
    optimizer = recipe.optimizer.model_copy(update={"learning_rate": choice.learning_rate})
    return recipe.model_copy(update={"seed": seed, "lora": lora, "optimizer": optimizer})


def _run(place: World, choice: Choice) -> dict[str, Any]:
    recipe = recipe_of(choice, seed=place.seed)
    steps = math.ceil(choice.epochs * len(place.train) / recipe.data.global_batch)
    started = time.process_time()
    model = trained(recipe, place.train, num_steps=steps)
    seconds = time.process_time() - started
    loss = mean_loss(
        model,
        place.validation,
        collective=Alone(),
        objective=objective_of(recipe, device=torch.device("cpu")),
    )
    return {
        "seed": place.seed,
        **asdict(choice),
        "num_steps": steps,
        "train_cpu_s": seconds,
        "validation_loss": loss,
        **good(model, place.tokenizer, place.held_out),
    }


def compare(runs: Sequence[dict[str, Any]], choices: Sequence[Choice]) -> list[Figure]:
    """Means over the seeds, best first; and what choosing by validation loss would have got."""
    by_choice = {
        choice: [run for run in runs if asdict(choice).items() <= run.items()] for choice in choices
    }
    shares = {
        choice: mean(run["rated_good"] for run in of_it) for choice, of_it in by_choice.items()
    }
    figures = [
        Figure(f"rated good, {choice}", shares[choice], "share")
        for choice in sorted(choices, key=lambda choice: -shares[choice])
    ]
    seeds = sorted({run["seed"] for run in runs})
    chosen = [
        min((run for run in runs if run["seed"] == seed), key=lambda run: run["validation_loss"])
        for seed in seeds
    ]
    best = [max(run["rated_good"] for run in runs if run["seed"] == seed) for seed in seeds]
    figures.append(
        Figure(
            "rated good, chosen by validation loss",
            mean(run["rated_good"] for run in chosen),
            "share",
            peer="best of each seed",
            peer_value=mean(best),
        )
    )
    if len(choices) > 2:  # two are always in line
        figures.append(
            Figure(
                "rank correlation of validation loss with rated good",
                mean(_correlation([r for r in runs if r["seed"] == seed]) for seed in seeds),
                "Spearman",
            )
        )
    return figures


def _correlation(runs: Sequence[dict[str, Any]]) -> float:
    losses, shares = ([run[key] for run in runs] for key in ("validation_loss", "rated_good"))
    return float(spearmanr(losses, shares).statistic)


if __name__ == "__main__":
    main()
